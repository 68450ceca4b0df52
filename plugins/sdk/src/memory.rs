//! Where a call's memory comes from.
//!
//! Every call has a fresh instance and is over in microseconds. To grow its memory even once costs the host two changes of
//! page protection, which is more than many calls compute; so the first [`FIRST`] bytes belong to the module from the start.
//! They are handed out one after the other, and what is given back is used again only if it was the last: the instance ends
//! before that could matter. Whoever needs more gets it from the standard library's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;

/// Bytes that an instance begins with. A small judgement needs some tens of thousands.
#[cfg(target_arch = "wasm32")]
const FIRST: usize = 256 << 10;

#[cfg(target_arch = "wasm32")]
#[global_allocator]
static MEMORY: Memory<FIRST> = Memory::new();

/// A block, and the standard library's allocator behind it.
struct Memory<const BYTES: usize> {
    block: UnsafeCell<Block<BYTES>>,
    /// Bytes of the block that are handed out.
    used: Cell<usize>,
}

#[repr(C, align(16))]
struct Block<const BYTES: usize>([MaybeUninit<u8>; BYTES]);

#[expect(unsafe_code, reason = "a component has one thread: its memory is not shared")]
// SAFETY: this exists on wasm32 without threads alone; the host refuses shared memories.
#[cfg(target_arch = "wasm32")]
unsafe impl<const BYTES: usize> Sync for Memory<BYTES> {}

impl<const BYTES: usize> Memory<BYTES> {
    const fn new() -> Self {
        Self { block: UnsafeCell::new(Block([MaybeUninit::uninit(); BYTES])), used: Cell::new(0) }
    }

    /// Where in the block this lies; `None` for what the standard library's allocator gave.
    fn place(&self, at: *mut u8) -> Option<usize> {
        (at as usize).checked_sub(self.block.get() as usize).filter(|place| *place < BYTES)
    }

    /// Takes the bytes from here on, if there are so many.
    fn take(&self, from: usize, bytes: usize) -> bool {
        let end = from.checked_add(bytes).filter(|end| *end <= BYTES);
        self.used.set(end.unwrap_or(self.used.get()));
        end.is_some()
    }

    /// Whether this ends where the next would begin.
    fn is_last(&self, place: usize, bytes: usize) -> bool {
        place.checked_add(bytes) == Some(self.used.get())
    }
}

#[expect(unsafe_code, reason = "an allocator is made of this")]
// SAFETY: a place is handed out once until it is given back: `used` only passes what was handed out, and goes back only to
// the beginning of what was handed out last. Places lie within the block and are aligned in memory, not in the block. What
// `place` does not know came from `System` and goes back there, with the layout that it came with.
unsafe impl<const BYTES: usize> GlobalAlloc for Memory<BYTES> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = self.block.get().cast::<u8>();
        let next = (block as usize).wrapping_add(self.used.get());
        let aligned = next.checked_next_multiple_of(layout.align());
        let place = aligned.and_then(|aligned| aligned.checked_sub(block as usize));
        match place {
            // Nothing of no bytes is asked for; a place at the very end would not be known again.
            Some(place) if place < BYTES && self.take(place, layout.size()) => block.wrapping_add(place),
            // SAFETY: the caller's layout.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match self.place(at) {
            Some(place) if self.is_last(place, layout.size()) => self.used.set(place),
            Some(_) => {}
            // SAFETY: not of the block, so `System` gave it with this layout.
            None => unsafe { System.dealloc(at, layout) },
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let Some(place) = self.place(at) else {
            // SAFETY: not of the block, so `System` gave it with this layout.
            return unsafe { System.realloc(at, layout, bytes) };
        };
        let stays =
            if self.is_last(place, layout.size()) { self.take(place, bytes) } else { bytes <= layout.size() };
        if stays {
            return at;
        }
        let Ok(wanted) = Layout::from_size_align(bytes, layout.align()) else { return std::ptr::null_mut() };
        // SAFETY: the new place is another than the old one, and both hold what is copied.
        unsafe {
            let to = self.alloc(wanted);
            if !to.is_null() {
                std::ptr::copy_nonoverlapping(at, to, layout.size().min(bytes));
                self.dealloc(at, layout);
            }
            to
        }
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "an allocator is called like this")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Take { bytes: usize, align: u32 },
        Give(usize),
        Change { which: usize, bytes: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1_usize..300, 0_u32..7).prop_map(|(bytes, align)| Step::Take { bytes, align }),
            any::<usize>().prop_map(Step::Give),
            (any::<usize>(), 1_usize..500).prop_map(|(which, bytes)| Step::Change { which, bytes }),
        ]
    }

    struct Held {
        at: *mut u8,
        layout: Layout,
        mark: u8,
    }

    impl Held {
        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the allocator under test gave these bytes, and nobody else looks at them.
            unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) }
        }
    }

    proptest! {
        /// Whatever is asked for in whatever order: it is aligned, nobody else's, and keeps what is in it.
        #[test]
        fn what_is_handed_out_is_nobody_elses(steps in prop::collection::vec(step(), 1..120)) {
            let memory = Memory::<4096>::new();
            let mut all: Vec<Held> = Vec::new();
            for (n, step) in steps.into_iter().enumerate() {
                let mark = u8::try_from(n).unwrap();
                match step {
                    Step::Take { bytes, align } => {
                        let layout = Layout::from_size_align(bytes, 1 << align).unwrap();
                        // SAFETY: a layout of some bytes.
                        let at = unsafe { memory.alloc(layout) };
                        prop_assert!(!at.is_null() && (at as usize).is_multiple_of(layout.align()));
                        all.push(Held { at, layout, mark });
                        all.last_mut().unwrap().bytes().fill(mark);
                    }
                    Step::Give(_) | Step::Change { .. } if all.is_empty() => {}
                    Step::Give(which) => {
                        let held = all.swap_remove(which % all.len());
                        // SAFETY: as it was given.
                        unsafe { memory.dealloc(held.at, held.layout) };
                    }
                    Step::Change { which, bytes } => {
                        let which = which % all.len();
                        let held = &mut all[which];
                        // SAFETY: as it was given.
                        held.at = unsafe { memory.realloc(held.at, held.layout, bytes) };
                        let kept = held.layout.size().min(bytes);
                        held.layout = Layout::from_size_align(bytes, held.layout.align()).unwrap();
                        prop_assert!((held.at as usize).is_multiple_of(held.layout.align()));
                        let mark_before = held.mark;
                        prop_assert!(held.bytes().iter().take(kept).all(|b| *b == mark_before));
                        held.mark = mark;
                        held.bytes().fill(mark);
                    }
                }
                for held in &mut all {
                    let mark = held.mark;
                    prop_assert!(held.bytes().iter().all(|b| *b == mark), "after step {}", n);
                }
            }
            for held in all {
                // SAFETY: as it was given.
                unsafe { memory.dealloc(held.at, held.layout) };
            }
        }
    }

    #[test]
    fn text_that_grows_at_the_end_stays_where_it_is() {
        let memory = Memory::<4096>::new();
        let of = |bytes| Layout::from_size_align(bytes, 1).unwrap();
        // SAFETY: layouts as they were given.
        unsafe {
            let text = memory.alloc(of(8));
            assert_eq!(memory.realloc(text, of(8), 4_000), text);
            let other = memory.alloc(of(96));
            assert!(memory.place(other).is_some(), "exactly full");
            let beyond = memory.alloc(of(1));
            assert!(memory.place(beyond).is_none());
            let moved = memory.realloc(text, of(4_000), 5_000);
            assert!(memory.place(moved).is_none());
            memory.dealloc(beyond, of(1));
            memory.dealloc(moved, of(5_000));
            memory.dealloc(other, of(96));
            assert_eq!(memory.used.get(), 4_000);
        }
    }
}
