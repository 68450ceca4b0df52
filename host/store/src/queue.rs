//! The way into the writer: a bounded queue of commands, and acknowledgements that can be awaited on any
//! executor or waited for on a thread.
//!
//! It is written here because it bounds *bytes* as well as items and must not depend on a runtime.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Result, StoreError};

/// Commands that may wait.
const MAX_ITEMS: usize = 4096;
/// Bytes of records that may wait, beyond the first command.
const MAX_BYTES: usize = 64 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds these locks; if it did, the data would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
enum Answer<T> {
    Pending(Option<Waker>),
    Ready(Result<T>),
    Taken,
}

#[derive(Debug)]
struct Slot<T> {
    answer: Mutex<Answer<T>>,
    ready: Condvar,
}

/// An answer to come. Await it, or [`wait`](Self::wait) for it; dropping it changes nothing about what was
/// asked for.
#[derive(Debug)]
#[must_use = "what was appended is on disk only once this is answered"]
pub struct Ack<T>(Arc<Slot<T>>);

/// The other end: answers once. Dropped without an answer, it answers [`StoreError::Closed`].
#[derive(Debug)]
pub(crate) struct Reply<T>(Option<Arc<Slot<T>>>);

pub(crate) fn ack<T>() -> (Reply<T>, Ack<T>) {
    let slot = Arc::new(Slot { answer: Mutex::new(Answer::Pending(None)), ready: Condvar::new() });
    (Reply(Some(Arc::clone(&slot))), Ack(slot))
}

/// An answer that is known already.
pub(crate) fn answered<T>(result: Result<T>) -> Ack<T> {
    Ack(Arc::new(Slot { answer: Mutex::new(Answer::Ready(result)), ready: Condvar::new() }))
}

impl<T> Ack<T> {
    /// Blocks this thread until the answer is there. Not for async code: await the ack there.
    ///
    /// # Errors
    /// What became of the append, see [`crate::Store::append`].
    pub fn wait(self) -> Result<T> {
        let mut answer = lock(&self.0.answer);
        loop {
            match std::mem::replace(&mut *answer, Answer::Taken) {
                Answer::Ready(result) => return result,
                Answer::Taken => return Err(StoreError::Closed),
                pending @ Answer::Pending(_) => {
                    *answer = pending;
                    answer = self.0.ready.wait(answer).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl<T> Future for Ack<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut answer = lock(&self.0.answer);
        match std::mem::replace(&mut *answer, Answer::Taken) {
            Answer::Ready(result) => Poll::Ready(result),
            Answer::Taken => Poll::Ready(Err(StoreError::Closed)),
            Answer::Pending(_) => {
                *answer = Answer::Pending(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Reply<T> {
    pub(crate) fn answer(mut self, result: Result<T>) {
        self.put(result);
    }

    fn put(&mut self, result: Result<T>) {
        let Some(slot) = self.0.take() else { return };
        let before = std::mem::replace(&mut *lock(&slot.answer), Answer::Ready(result));
        slot.ready.notify_all();
        if let Answer::Pending(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.put(Err(StoreError::Closed));
    }
}

#[derive(Debug)]
struct State<C> {
    items: VecDeque<(C, usize)>,
    bytes: usize,
    closed: bool,
}

/// A bounded queue with one reader.
#[derive(Debug)]
pub(crate) struct Queue<C> {
    state: Mutex<State<C>>,
    filled: Condvar,
    drained: Condvar,
}

impl<C> Queue<C> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), bytes: 0, closed: false }),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    /// Adds a command of so many bytes; waits while the queue is full. Drops it when the queue is closed.
    pub(crate) fn push(&self, command: C, bytes: usize) {
        let mut state = lock(&self.state);
        while !state.closed
            && !state.items.is_empty()
            && (state.items.len() >= MAX_ITEMS || state.bytes + bytes > MAX_BYTES)
        {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed {
            state.bytes += bytes;
            state.items.push_back((command, bytes));
            self.filled.notify_one();
        }
    }

    /// The next command and, if it `joins`, those behind it that join too, while they fit in a group. Empty
    /// when the queue is closed and drained.
    pub(crate) fn pop_group(&self, joins: impl Fn(&C) -> bool, max_bytes: usize) -> Vec<C> {
        let mut state = lock(&self.state);
        while state.items.is_empty() && !state.closed {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut taken) = (Vec::new(), 0);
        while let Some((command, bytes)) = state.items.pop_front() {
            let fits = group.is_empty() || (taken + bytes <= max_bytes && joins(&command));
            if !fits {
                state.items.push_front((command, bytes));
                break;
            }
            taken += bytes;
            state.bytes -= bytes;
            let alone = !joins(&command);
            group.push(command);
            if alone {
                break;
            }
        }
        self.drained.notify_all();
        group
    }

    /// Lets nothing further in. What waits is still handed out.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Closes and throws away what waits: its acks answer `Closed`.
    pub(crate) fn abandon(&self) {
        self.close();
        let items = std::mem::take(&mut lock(&self.state).items);
        drop(items);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_ack_is_answered_across_threads() {
        let (reply, waiting) = ack();
        let t = thread::spawn(move || waiting.wait());
        reply.answer(Ok(5));
        assert_eq!(t.join().unwrap(), Ok(5));
    }

    #[test]
    fn an_ack_whose_writer_is_gone_does_not_hang() {
        let (reply, waiting) = ack::<()>();
        drop(reply);
        assert_eq!(waiting.wait(), Err(StoreError::Closed));
        let queue = Queue::new();
        let (reply, waiting) = ack::<()>();
        queue.push(reply, 1);
        queue.abandon();
        assert_eq!(waiting.wait(), Err(StoreError::Closed));
        let (reply, waiting) = ack::<()>();
        queue.push(reply, 1);
        assert_eq!(waiting.wait(), Err(StoreError::Closed));
    }

    #[test]
    fn an_awaited_ack_wakes_its_task() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(Arc::clone(&flag));
        let mut cx = Context::from_waker(&waker);
        let (reply, waiting) = ack();
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        reply.answer(Ok(1));
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(Ok(1)));
    }

    #[test]
    fn a_group_takes_what_joins_and_fits() {
        let queue = Queue::new();
        for (n, bytes) in [(2, 5), (4, 5), (6, 5), (7, 1), (8, 90)] {
            queue.push(n, bytes);
        }
        queue.close();
        let even = |n: &i32| n % 2 == 0;
        let groups: Vec<_> = (0..5).map(|_| queue.pop_group(even, 10)).collect();
        assert_eq!(groups, [vec![2, 4], vec![6], vec![7], vec![8], vec![]]);
    }

    #[test]
    fn a_full_queue_holds_the_writer_up_until_there_is_room() {
        let queue = Arc::new(Queue::new());
        queue.push(0, MAX_BYTES);
        let pusher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(1, 1))
        };
        thread::sleep(std::time::Duration::from_millis(30));
        assert!(!pusher.is_finished());
        assert_eq!(queue.pop_group(|_| false, 1), vec![0]);
        pusher.join().unwrap();
        assert_eq!(queue.pop_group(|_| true, 1), vec![1]);
    }
}
