//! How a file is put together, seen without decoding it: where its picture ends, and whether it moves.
//!
//! Decoders are lenient: what is missing behind the last whole row becomes grey, and what follows the end is nobody's
//! business. A stranger's file is looked at more closely. Every walk is one pass over the bytes.

use image::ImageFormat;

/// What a walk over a file's parts finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where the file's own end is, at most behind its last byte.
    pub(super) end: Result<usize, Broken>,
    /// More than one frame, or the mark of a format's moving kind.
    pub(super) moves: bool,
}

/// Why a file has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It breaks off.
    Cut,
    /// What follows its beginning is not of its format.
    Nonsense,
}

pub(super) fn layout(bytes: &[u8], format: ImageFormat) -> Layout {
    let mut moves = false;
    let end = match format {
        ImageFormat::Png => png(bytes, &mut moves),
        ImageFormat::Jpeg => jpeg(bytes),
        ImageFormat::Gif => gif(bytes, &mut moves),
        ImageFormat::WebP => webp(bytes, &mut moves),
        _ => Err(Broken::Nonsense),
    };
    let within = |end| if end <= bytes.len() { Ok(end) } else { Err(Broken::Cut) };
    Layout { end: end.and_then(within), moves }
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, Broken> {
    bytes.get(at).copied().ok_or(Broken::Cut)
}

fn four(bytes: &[u8], at: usize) -> Result<[u8; 4], Broken> {
    let found = bytes.get(at..at.saturating_add(4)).and_then(|four| four.try_into().ok());
    found.ok_or(Broken::Cut)
}

fn length(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Chunks of length, kind, data and checksum, up to `IEND`; `acTL` is the mark of an animation.
fn png(bytes: &[u8], moves: &mut bool) -> Result<usize, Broken> {
    let mut at = 8_usize;
    loop {
        let data = length(u32::from_be_bytes(four(bytes, at)?));
        let kind = four(bytes, at.saturating_add(4))?;
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(Broken::Nonsense);
        }
        *moves |= &kind == b"acTL";
        at = at.saturating_add(12).saturating_add(data);
        if &kind == b"IEND" {
            return Ok(at);
        }
    }
}

/// Segments, and behind each start of a scan coded bytes in which `FF` stands before `00`, a restart or a marker.
fn jpeg(bytes: &[u8]) -> Result<usize, Broken> {
    let (mut at, mut scanning) = (2_usize, false);
    loop {
        while byte(bytes, at)? != 0xFF {
            if !scanning {
                return Err(Broken::Nonsense);
            }
            at += 1;
        }
        while byte(bytes, at)? == 0xFF {
            at += 1;
        }
        let marker = byte(bytes, at)?;
        at += 1;
        match marker {
            0xD9 => return Ok(at),
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let segment = u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]);
                at += usize::from(segment).max(2);
                // Coded bytes may be filled up behind a scan, so they are skipped from the first one on.
                scanning |= marker == 0xDA;
            }
        }
    }
}

/// Header and colours, then pictures and extensions up to the trailer.
fn gif(bytes: &[u8], moves: &mut bool) -> Result<usize, Broken> {
    let colours = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + colours(byte(bytes, 10)?);
    let mut frames = 0_usize;
    loop {
        match byte(bytes, at)? {
            0x3B => return Ok(at + 1),
            0x2C => {
                frames += 1;
                *moves |= frames > 1;
                // Place and size, flags, colours, and the width of codes.
                at += 11 + colours(byte(bytes, at + 9)?);
            }
            0x21 => at += 2,
            _ => return Err(Broken::Nonsense),
        }
        // Blocks of up to 255 bytes, the last of none.
        loop {
            let block = usize::from(byte(bytes, at)?);
            at += 1 + block;
            if block == 0 {
                break;
            }
        }
    }
}

/// One RIFF that states its length; in the extended kind a flag says that it moves.
fn webp(bytes: &[u8], moves: &mut bool) -> Result<usize, Broken> {
    let whole = length(u32::from_le_bytes(four(bytes, 4)?)).saturating_add(8);
    let mut at = 12_usize;
    while at < whole {
        let kind = four(bytes, at)?;
        if !kind.iter().all(|b| *b == b' ' || b.is_ascii_graphic()) {
            return Err(Broken::Nonsense);
        }
        let data = length(u32::from_le_bytes(four(bytes, at.saturating_add(4))?));
        *moves |= matches!(&kind, b"ANIM" | b"ANMF");
        *moves |= &kind == b"VP8X" && bytes.get(at + 8).is_some_and(|flags| flags & 2 != 0);
        at = at.saturating_add(8).saturating_add(data).saturating_add(data % 2);
    }
    if at == whole { Ok(whole) } else { Err(Broken::Nonsense) }
}
