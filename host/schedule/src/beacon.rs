//! The beacon: which blocks start a window for everybody.
//!
//! A block starts a window of a task when the first eight bytes of the SHA-256 of
//! `"nineteen/beacon/1" ‖ block hash ‖ netuid (u16, little endian) ‖ name of the task`, read as a big-endian number,
//! are below the part of all numbers that makes the wanted mean. Nobody knows before the block, everybody at the
//! block, and how long none has come says nothing about when the next will.

use nineteen_domain::{Digest, TaskName};

/// Whether a block with this hash starts a window of this task, where `per_block` of all blocks do; in [0, 1].
#[must_use]
pub fn starts_window(block_hash: &[u8; 32], netuid: u16, task: &TaskName, per_block: f64) -> bool {
    let mut input = b"nineteen/beacon/1".to_vec();
    input.extend_from_slice(block_hash);
    input.extend_from_slice(&netuid.to_le_bytes());
    input.extend_from_slice(task.as_str().as_bytes());
    let digest = Digest::of(&input);
    let first = digest.as_bytes().iter().take(8).fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    #[expect(clippy::cast_precision_loss, reason = "a part of all numbers to 53 bits")]
    let at = first as f64 / (u64::MAX as f64 + 1.0);
    at < per_block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_blocks_as_wanted_start_a_window_and_each_task_has_its_own() {
        let (a, b) = (TaskName::new("chat").unwrap(), TaskName::new("embed").unwrap());
        let n = 20_000_u32;
        let mut count = [0_u32; 3];
        for i in 0..n {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&i.to_le_bytes());
            let (x, y) = (starts_window(&hash, 19, &a, 0.1), starts_window(&hash, 19, &b, 0.1));
            count[0] += u32::from(x);
            count[1] += u32::from(y);
            count[2] += u32::from(x && y);
            assert_eq!(x, starts_window(&hash, 19, &a, 0.1));
            assert!(!starts_window(&hash, 19, &a, 0.0));
            assert!(starts_window(&hash, 19, &a, 1.0));
        }
        for (got, p) in [(count[0], 0.1), (count[1], 0.1), (count[2], 0.01)] {
            let (got, n) = (f64::from(got), f64::from(n));
            assert!((got / n - p).abs() < 4.0 * (p * (1.0 - p) / n).sqrt(), "{got} of {n} for {p}");
        }
    }

    #[test]
    fn the_documented_bytes_are_hashed() {
        // sha256("nineteen/beacon/1" ‖ 32 zero bytes ‖ 0x13 0x00 ‖ "chat"), computed with another tool.
        let chat = TaskName::new("chat").unwrap();
        let at = FIRST_EIGHT_BYTES as f64 / (u64::MAX as f64 + 1.0);
        assert!(!starts_window(&[0; 32], 19, &chat, at));
        assert!(starts_window(&[0; 32], 19, &chat, at + 1e-12));
    }

    const FIRST_EIGHT_BYTES: u64 = 0x67aaa1fc61d6bcea;
}
