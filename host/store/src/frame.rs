//! How records lie in a segment: pure functions over bytes, no I/O.
//!
//! ```text
//! segment = header frame*
//! header  = "n19-seg\n" format:u32 family:u32 seq:u64 created_us:u64 marker:u32 crc:u32     (40 bytes)
//! frame   = marker:u32 len:u32 crc:u32 entry*        one frame = one group commit, len bytes of entries
//! entry   = len:u32 crc:u32 bytes                    one entry = one record
//! ```
//! Integers are little-endian; every CRC is CRC-32 (IEEE) and covers the length too.
//!
//! The one idea: a frame is synced before the next is written. So at most the last frame of the last
//! segment can be torn by a crash, and a damaged frame with a whole one behind it was acknowledged once.
//! To look for that whole one, the `marker` is searched: 32 random bits of each segment, which nobody
//! outside can know, so that no miner's bytes can pass for a frame.

use crate::error::{Result, StoreError};

/// Bytes of a segment's header.
pub(crate) const HEADER_LEN: usize = 40;
/// Bytes before the entries of a frame.
pub(crate) const FRAME_HEAD: usize = 12;
/// Bytes before the payload of an entry.
pub(crate) const ENTRY_HEAD: usize = 8;
/// The most bytes of entries that one append may bring.
pub(crate) const APPEND_CAP: usize = 48 << 20;
/// The most bytes of entries in a frame: one append of the largest size, and what else joined its group.
pub(crate) const FRAME_CAP: usize = APPEND_CAP + GROUP_BYTES;
/// A group takes no further append once it holds this many bytes.
pub(crate) const GROUP_BYTES: usize = 8 << 20;

const MAGIC: &[u8; 8] = b"n19-seg\n";
const FORMAT: u32 = 1;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which family of segments, see `segment::Family`.
    pub(crate) family: u32,
    /// Its number in the family, from 1.
    pub(crate) seq: u64,
    /// Microseconds of the Unix epoch.
    pub(crate) created_us: u64,
    /// Random bits that begin every frame.
    pub(crate) marker: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.family.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.created_us.to_le_bytes());
        out.extend_from_slice(&self.marker.to_le_bytes());
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header, or says why it is none.
    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, &'static str> {
        let raw = bytes.get(..HEADER_LEN).ok_or("the header is cut short")?;
        let (body, crc) = raw.split_at(HEADER_LEN - 4);
        if body.get(..8) != Some(MAGIC.as_slice()) {
            return Err("it does not begin as a segment does");
        }
        if u32_at(crc, 0) != Some(crc32fast::hash(body)) {
            return Err("the header's checksum is wrong");
        }
        if u32_at(body, 8) != Some(FORMAT) {
            return Err("the segment's format is not known to this program");
        }
        let header = || {
            Some(Self {
                family: u32_at(body, 12)?,
                seq: u64_at(body, 16)?,
                created_us: u64_at(body, 24)?,
                marker: u32_at(body, 32)?,
            })
        };
        header().ok_or("the header is cut short")
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let raw = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(raw.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(raw.try_into().ok()?))
}

fn crc_of(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// One frame around these entries. The second value is each entry's offset within the frame.
///
/// # Errors
/// [`StoreError::TooLarge`] above [`FRAME_CAP`].
pub(crate) fn encode(marker: u32, entries: &[&[u8]]) -> Result<(Vec<u8>, Vec<u64>)> {
    let total: usize = entries.iter().map(|e| e.len().saturating_add(ENTRY_HEAD)).sum();
    let too_large = || StoreError::TooLarge { bytes: total, cap: FRAME_CAP };
    if total > FRAME_CAP {
        return Err(too_large());
    }
    let mut payload = Vec::with_capacity(total);
    let mut offsets = Vec::with_capacity(entries.len());
    for entry in entries {
        let len = u32::try_from(entry.len()).map_err(|_| too_large())?;
        offsets.push((FRAME_HEAD + payload.len()) as u64);
        payload.extend_from_slice(&len.to_le_bytes());
        payload.extend_from_slice(&crc_of(len, entry).to_le_bytes());
        payload.extend_from_slice(entry);
    }
    let len = u32::try_from(payload.len()).map_err(|_| too_large())?;
    let mut out = Vec::with_capacity(FRAME_HEAD + payload.len());
    out.extend_from_slice(&marker.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&crc_of(len, &payload).to_le_bytes());
    out.append(&mut payload);
    Ok((out, offsets))
}

/// What lies at an offset of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At<'a> {
    /// A whole frame: its entries, and where the next one begins.
    Frame {
        /// The bytes of the entries.
        entries: &'a [u8],
        /// Offset behind the frame.
        next: usize,
    },
    /// The end of the bytes.
    End,
    /// Not a whole frame.
    Damaged(&'static str),
}

/// Looks at the frame that begins at `at`.
pub(crate) fn frame_at(bytes: &[u8], at: usize, marker: u32) -> At<'_> {
    let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) else { return At::End };
    let (Some(found), Some(len), Some(crc)) = (u32_at(rest, 0), u32_at(rest, 4), u32_at(rest, 8)) else {
        return At::Damaged("a frame's head is cut short");
    };
    if found != marker {
        return At::Damaged("no frame begins here");
    }
    let wide = len as usize;
    if wide == 0 || wide > FRAME_CAP {
        return At::Damaged("a frame's length is out of range");
    }
    let Some(entries) = rest.get(FRAME_HEAD..FRAME_HEAD + wide) else {
        return At::Damaged("a frame is cut short");
    };
    if crc_of(len, entries) != crc {
        return At::Damaged("a frame's checksum is wrong");
    }
    At::Frame { entries, next: at + FRAME_HEAD + wide }
}

/// Whether a whole frame begins anywhere behind `from`: then the damage before it is no torn tail.
pub(crate) fn whole_frame_behind(bytes: &[u8], from: usize, marker: u32) -> bool {
    let wanted = marker.to_le_bytes();
    let Some(rest) = bytes.get(from..) else { return false };
    rest.windows(4)
        .enumerate()
        .skip(1)
        .filter(|(_, w)| *w == wanted)
        .any(|(i, _)| matches!(frame_at(bytes, from + i, marker), At::Frame { .. }))
}

/// One entry at `at`: its payload and the offset behind it. `None` at the end.
pub(crate) fn entry_at(bytes: &[u8], at: usize) -> std::result::Result<Option<(&[u8], usize)>, &'static str> {
    let Some(rest) = bytes.get(at..).filter(|r| !r.is_empty()) else { return Ok(None) };
    let (Some(len), Some(crc)) = (u32_at(rest, 0), u32_at(rest, 4)) else {
        return Err("an entry's head is cut short");
    };
    let wide = len as usize;
    let payload = ENTRY_HEAD
        .checked_add(wide)
        .and_then(|end| rest.get(ENTRY_HEAD..end))
        .ok_or("an entry is cut short")?;
    if crc_of(len, payload) != crc {
        return Err("an entry's checksum is wrong");
    }
    Ok(Some((payload, at + ENTRY_HEAD + wide)))
}

/// The length that an entry's head announces, if the head is whole and the length possible.
pub(crate) fn entry_len(head: &[u8]) -> Option<usize> {
    u32_at(head, 0).map(|l| l as usize).filter(|l| *l <= APPEND_CAP)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8], marker: u32) -> (Vec<Vec<Vec<u8>>>, usize) {
        let (mut frames, mut at) = (Vec::new(), 0);
        while let At::Frame { entries, next } = frame_at(bytes, at, marker) {
            let (mut list, mut e) = (Vec::new(), 0);
            while let Some((payload, after)) = entry_at(entries, e).unwrap() {
                list.push(payload.to_vec());
                e = after;
            }
            frames.push(list);
            at = next;
        }
        (frames, at)
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let entry = prop::collection::vec(any::<u8>(), 0..80);
        prop::collection::vec(prop::collection::vec(entry, 1..5), 1..5)
    }

    fn write(groups: &[Vec<Vec<u8>>], marker: u32) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for g in groups {
            let entries: Vec<&[u8]> = g.iter().map(Vec::as_slice).collect();
            bytes.extend_from_slice(&encode(marker, &entries).unwrap().0);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_back(groups in groups(), marker: u32) {
            let (bytes, _) = write(&groups, marker);
            let (back, end) = read_all(&bytes, marker);
            prop_assert_eq!(back, groups);
            prop_assert_eq!(end, bytes.len());
        }

        #[test]
        fn a_cut_loses_only_the_frame_that_it_cuts(groups in groups(), marker: u32, cut: prop::sample::Index) {
            let (bytes, ends) = write(&groups, marker);
            let cut = cut.index(bytes.len());
            let (back, end) = read_all(&bytes[..cut], marker);
            let whole = ends.iter().filter(|e| **e <= cut).count();
            prop_assert_eq!(&back[..], &groups[..whole]);
            prop_assert!(!whole_frame_behind(&bytes[..cut], end, marker));
        }

        #[test]
        fn a_flipped_bit_is_noticed(groups in groups(), marker: u32, at: prop::sample::Index, bit in 0_u8..8) {
            let (mut bytes, ends) = write(&groups, marker);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (back, end) = read_all(&bytes, marker);
            let hit = ends.iter().filter(|e| **e <= at).count();
            prop_assert_eq!(&back[..], &groups[..hit]);
            // A whole frame behind the damage tells it from a torn tail.
            prop_assert_eq!(whole_frame_behind(&bytes, end, marker), hit + 1 < groups.len());
        }

        #[test]
        fn arbitrary_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), marker: u32, at in 0_usize..500) {
            let _ = Header::decode(&bytes);
            let _ = frame_at(&bytes, at, marker);
            let _ = whole_frame_behind(&bytes, at, marker);
            let _ = entry_at(&bytes, at);
            // Bytes that begin like a frame go further in.
            let mut like = marker.to_le_bytes().to_vec();
            like.extend_from_slice(&bytes);
            let _ = read_all(&like, marker);
        }

        #[test]
        fn a_header_survives_the_round_trip(family: u32, seq: u64, created_us: u64, marker: u32) {
            let h = Header { family, seq, created_us, marker };
            prop_assert_eq!(Header::decode(&h.encode()), Ok(h));
        }
    }

    #[test]
    fn bytes_that_mimic_a_frame_do_not_pass_for_one() {
        // A miner replies with a perfect frame of a segment whose marker it guessed wrong.
        let forged = encode(7, &[b"paid: everything".as_slice()]).unwrap().0;
        let (honest, _) = encode(8, &[forged.as_slice()]).unwrap();
        let torn = &honest[..honest.len() - 1];
        assert_eq!(frame_at(torn, 0, 8), At::Damaged("a frame is cut short"));
        assert!(!whole_frame_behind(torn, 0, 8));
    }

    #[test]
    fn a_frame_above_the_cap_is_refused_before_it_is_built() {
        let big = vec![0; APPEND_CAP];
        let err = encode(1, &[big.as_slice(), big.as_slice()]).unwrap_err();
        assert_eq!(err.code(), "store.too-large");
    }
}
