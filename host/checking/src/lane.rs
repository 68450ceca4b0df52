//! A bounded queue in front of the threads that own a model's sessions, and how they end.
//!
//! For: handing work from async callers to threads, making callers wait when there is too much of it, and
//! stopping. Not for: what the work is. The one idea: stopping is closing. The lane gives its sender up, threads
//! drain what is queued (each job told that it is too late) and end when the channel does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::error::CheckingError;

/// Where work goes in. Cloned by handles; all of them close together.
pub(crate) struct Lane<J> {
    sender: Mutex<Option<mpsc::Sender<J>>>,
    stopping: Arc<AtomicBool>,
}

impl<J> Lane<J> {
    /// Waits for room. Dropping the future withdraws the job.
    pub(crate) async fn submit(&self, job: J) -> Result<(), CheckingError> {
        // A plain mutex: held for a clone, never across the await.
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.ok_or(CheckingError::Stopped)?.send(job).await.map_err(|_| CheckingError::Stopped)
    }

    pub(crate) fn close(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Where work comes out: shared by the threads of one lane.
pub(crate) struct Intake<J> {
    receiver: Arc<Mutex<mpsc::Receiver<J>>>,
    stopping: Arc<AtomicBool>,
}

impl<J> Clone for Intake<J> {
    fn clone(&self) -> Self {
        Self { receiver: Arc::clone(&self.receiver), stopping: Arc::clone(&self.stopping) }
    }
}

impl<J> Intake<J> {
    /// Whether what is under way shall be given up.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Blocks for one job, then takes what else is there already, `most` in all. Empty when the lane has closed.
    fn take(&self, most: usize) -> Vec<J> {
        // Held while blocking: the threads of a lane queue up here and one at a time waits on the channel.
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let mut jobs: Vec<J> = receiver.blocking_recv().into_iter().collect();
        while !jobs.is_empty() && jobs.len() < most {
            match receiver.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        jobs
    }
}

/// A lane for `queue` waiting jobs.
pub(crate) fn lane<J>(queue: usize) -> (Arc<Lane<J>>, Intake<J>) {
    let (sender, receiver) = mpsc::channel(queue.max(1));
    let stopping = Arc::new(AtomicBool::new(false));
    (
        Arc::new(Lane { sender: Mutex::new(Some(sender)), stopping: Arc::clone(&stopping) }),
        Intake { receiver: Arc::new(Mutex::new(receiver)), stopping },
    )
}

/// Starts a thread that works jobs off until the lane closes. A job that panics is dropped, which its caller sees;
/// the thread goes on.
pub(crate) fn work<J: Send + 'static>(
    name: String,
    intake: Intake<J>,
    most: usize,
    mut each: impl FnMut(Vec<J>) + Send + 'static,
) -> Result<JoinHandle<()>, CheckingError> {
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            loop {
                let jobs = intake.take(most);
                if jobs.is_empty() {
                    return;
                }
                if catch_unwind(AssertUnwindSafe(|| each(jobs))).is_err() {
                    tracing::error!("a job panicked; it is answered as failed and the executor goes on");
                }
            }
        })
        .map_err(|e| CheckingError::System(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_lane_refuses_and_its_threads_end() {
        let (lane, intake) = lane::<std::sync::mpsc::Sender<u8>>(4);
        let thread = work("t".into(), intake, 1, |jobs| {
            for reply in jobs {
                reply.send(1).unwrap();
            }
        })
        .unwrap();
        let (reply, answer) = std::sync::mpsc::channel();
        lane.submit(reply.clone()).await.unwrap();
        assert_eq!(answer.recv().unwrap(), 1);
        lane.close();
        assert_eq!(lane.submit(reply).await, Err(CheckingError::Stopped));
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_job_that_panics_does_not_take_the_thread_with_it() {
        let (lane, intake) = lane::<Option<std::sync::mpsc::Sender<u8>>>(4);
        let thread = work("t".into(), intake, 1, |jobs| {
            for reply in jobs {
                reply.expect("the first job has none").send(1).unwrap();
            }
        })
        .unwrap();
        lane.submit(None).await.unwrap();
        let (reply, answer) = std::sync::mpsc::channel();
        lane.submit(Some(reply)).await.unwrap();
        assert_eq!(answer.recv().unwrap(), 1);
        lane.close();
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait_instead_of_dropping() {
        let (lane, _intake) = lane::<u8>(1);
        lane.submit(1).await.unwrap();
        let second = tokio::time::timeout(std::time::Duration::from_millis(30), lane.submit(2)).await;
        assert!(second.is_err(), "the second had to wait");
    }
}
