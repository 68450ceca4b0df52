//! What cheats answer with in place of the picture that was asked for, made with the reference's own weights.

use bytes::Bytes;
use nineteen_checking::{Pixels, pixels};
use nineteen_domain::id::Digest;
use nineteen_miner::{Backend, OnnxBackend, Picture, PictureWork};

use crate::error::CalibrateError;

/// What is done with the reference's own weights.
pub(crate) const TRICKS: [Trick; 24] = [
    Trick::OtherSeed,
    Trick::HalfSteps,
    Trick::OneStepLess,
    Trick::OtherScheduler,
    Trick::NoGuidance,
    Trick::OtherPrompt,
    Trick::Cached,
    Trick::SameForAll,
    Trick::Noise,
    Trick::Jpeg30,
    Trick::Upscaled,
    Trick::Shifted,
    Trick::Photo,
    Trick::WarpedPhoto,
    Trick::OtherPerson,
    Trick::TwoFaces,
    Trick::Blank,
    Trick::WrongSize,
    Trick::FalseFlag,
    Trick::Unflagged,
    Trick::Bomb,
    Trick::LyingSize,
    Trick::Cut,
    Trick::Animated,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trick {
    OtherSeed,
    HalfSteps,
    OneStepLess,
    OtherScheduler,
    NoGuidance,
    OtherPrompt,
    Cached,
    SameForAll,
    Noise,
    Jpeg30,
    Upscaled,
    Shifted,
    /// Avatars: the photograph itself.
    Photo,
    /// Avatars: the photograph, moved, shrunk and mirrored.
    WarpedPhoto,
    /// Avatars: somebody else's.
    OtherPerson,
    /// Avatars: the portrait twice, side by side.
    TwoFaces,
    Blank,
    WrongSize,
    /// A flag where there is nothing to flag.
    FalseFlag,
    /// Where a flag is due, the picture.
    Unflagged,
    /// A file of a kilobyte that says it is 20,000 pixels wide and high.
    Bomb,
    /// A header that says more rows than there are.
    LyingSize,
    /// The first half of the file.
    Cut,
    /// The picture as the first of several.
    Animated,
}

impl Trick {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OtherSeed => "other-seed",
            Self::HalfSteps => "half-steps",
            Self::OneStepLess => "one-step-less",
            Self::OtherScheduler => "other-scheduler",
            Self::NoGuidance => "no-guidance",
            Self::OtherPrompt => "other-prompt",
            Self::Cached => "cached",
            Self::SameForAll => "same-for-all",
            Self::Noise => "noise",
            Self::Jpeg30 => "jpeg-30",
            Self::Upscaled => "upscaled",
            Self::Shifted => "shifted",
            Self::Photo => "photograph",
            Self::WarpedPhoto => "warped-photograph",
            Self::OtherPerson => "other-person",
            Self::TwoFaces => "two-faces",
            Self::Blank => "blank",
            Self::WrongSize => "wrong-size",
            Self::FalseFlag => "false-flag",
            Self::Unflagged => "unflagged",
            Self::Bomb => "bomb",
            Self::LyingSize => "lying-size",
            Self::Cut => "cut",
            Self::Animated => "animated",
        }
    }

    /// Whether it takes a photograph.
    pub(crate) const fn of_faces(self) -> bool {
        matches!(self, Self::Photo | Self::WarpedPhoto | Self::OtherPerson | Self::TwoFaces)
    }
}

/// One picture after another.
///
/// # Errors
/// [`CalibrateError`] when an executor fails.
pub(crate) async fn all(engine: &OnnxBackend, works: &[PictureWork]) -> Result<Vec<Picture>, CalibrateError> {
    let mut made = Vec::with_capacity(works.len());
    for work in works {
        let picture = engine.picture(work.clone()).await;
        made.push(picture.map_err(|e| CalibrateError::Request(e.to_string()))?);
    }
    Ok(made)
}

/// What a miner that plays this trick answers with, one a request; `None` where there is nothing to play it on.
///
/// # Errors
/// [`CalibrateError`] when an executor fails, or a picture of our own cannot be read.
pub(crate) async fn tricked(
    trick: Trick,
    engine: &OnnxBackend,
    works: &[PictureWork],
    own: &[Picture],
) -> Result<Vec<Option<Picture>>, CalibrateError> {
    let with = |change: &dyn Fn(usize, PictureWork) -> PictureWork| -> Vec<PictureWork> {
        works.iter().cloned().enumerate().map(|(n, w)| change(n, w)).collect()
    };
    let next = |n: usize| works.get((n + 1) % works.len().max(1));
    let drawn = |change: &dyn Fn(&Pixels) -> Option<Pixels>| -> Result<Vec<Picture>, CalibrateError> {
        own.iter()
            .map(|p| {
                let bad = || CalibrateError::Request("a picture of our own cannot be read".into());
                let picture = decoded(&p.png).ok_or_else(bad)?;
                let changed = change(&picture).ok_or_else(bad)?;
                Ok(Picture { png: Bytes::from(pixels::encode_png(&changed)), flagged: p.flagged })
            })
            .collect()
    };
    let filed = |change: &dyn Fn(&[u8]) -> Option<Vec<u8>>| -> Result<Vec<Picture>, CalibrateError> {
        own.iter()
            .map(|p| {
                let bad = || CalibrateError::Request("a picture of our own is no PNG".into());
                Ok(Picture { png: Bytes::from(change(&p.png).ok_or_else(bad)?), flagged: p.flagged })
            })
            .collect()
    };
    let flags = |flagged: bool| -> Vec<Option<Picture>> {
        let turned = |p: &Picture| (p.flagged != flagged).then(|| Picture { flagged, ..p.clone() });
        own.iter().map(turned).collect()
    };
    let made = match trick {
        Trick::SameForAll => {
            // Whose picture it is has done the work.
            let shown = own.iter().enumerate().map(|(n, p)| own.first().filter(|_| n > 0 && !p.flagged));
            return Ok(shown.map(|p| p.cloned().map(|p| Picture { flagged: false, ..p })).collect());
        }
        Trick::FalseFlag => return Ok(flags(true)),
        Trick::Unflagged => return Ok(flags(false)),
        Trick::OtherSeed => all(engine, &with(&|_, w| PictureWork { seed: w.seed ^ 1, ..w })).await,
        Trick::HalfSteps => all(engine, &with(&|_, w| PictureWork { steps: w.steps.div_ceil(2), ..w })).await,
        Trick::OneStepLess => {
            all(engine, &with(&|_, w| PictureWork { steps: (w.steps - 1).max(1), ..w })).await
        }
        Trick::OtherScheduler => {
            let other = |w: &PictureWork| match w.scheduler.as_deref() {
                Some("euler") => "ddim",
                _ => "euler",
            };
            all(engine, &with(&|_, w| PictureWork { scheduler: Some(other(&w).into()), ..w })).await
        }
        Trick::NoGuidance => all(engine, &with(&|_, w| PictureWork { guidance: 1.0, ..w })).await,
        Trick::OtherPrompt => {
            let prompt = |n: usize, w: &PictureWork| next(n).map_or(w.prompt.clone(), |o| o.prompt.clone());
            all(engine, &with(&|n, w| PictureWork { prompt: prompt(n, &w), ..w })).await
        }
        Trick::Cached => {
            let mut turned = own.to_vec();
            turned.rotate_left(1);
            Ok(turned)
        }
        Trick::Noise => drawn(&|picture| Some(noisy(picture))),
        Trick::Jpeg30 => drawn(&|picture| decoded(&pixels::encode_jpeg(picture, 30))),
        Trick::Upscaled => drawn(&|p| {
            let small = pixels::resized(p, p.width / 2, p.height / 2);
            Some(pixels::resized(&small, p.width, p.height))
        }),
        Trick::Shifted => drawn(&|picture| Some(pixels::shifted(picture, 1, 1))),
        Trick::Photo => photographs(works, &|photo| photo),
        Trick::WarpedPhoto => photographs(works, &|photo| {
            let small = pixels::resized(&photo, photo.width * 7 / 8, photo.height * 7 / 8);
            laid(&photo, &mirrored(&small), 4, 5)
        }),
        Trick::OtherPerson => {
            let face = |n: usize, w: &PictureWork| next(n).map_or(w.face.clone(), |o| o.face.clone());
            all(engine, &with(&|n, w| PictureWork { face: face(n, &w), ..w })).await
        }
        Trick::TwoFaces => drawn(&|p| {
            let half = pixels::resized(p, p.width / 2, p.height / 2);
            let grey = Pixels { width: p.width, height: p.height, rgb: vec![128; p.rgb.len()] };
            Some(laid(&laid(&grey, &half, 0, p.height / 4), &half, p.width / 2, p.height / 4))
        }),
        Trick::Blank => drawn(&|p| Some(Pixels { rgb: vec![128; p.rgb.len()], ..p.clone() })),
        Trick::WrongSize => drawn(&|p| Some(pixels::resized(p, p.width / 2, p.height / 2))),
        Trick::Bomb => filed(&|png| resized_header(png, 20_000, 20_000)),
        Trick::LyingSize => filed(&|png| {
            let [width, height] =
                [png.get(16..20)?, png.get(20..24)?].map(|b| b.try_into().map(u32::from_be_bytes));
            resized_header(png, width.ok()?, height.ok()?.checked_mul(2)?)
        }),
        Trick::Cut => filed(&|png| png.get(..png.len() / 2).map(<[u8]>::to_vec)),
        Trick::Animated => filed(&|png| {
            // Two frames, played for ever (the chunk `acTL` of the PNG specification, third edition).
            let control = chunk(*b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]);
            Some([png.get(..AFTER_HEADER)?, &control, png.get(AFTER_HEADER..)?].concat())
        }),
    }?;
    // A miner that withholds a picture has none to play tricks on.
    Ok(made
        .into_iter()
        .zip(own)
        .map(|(p, own)| (!own.flagged).then_some(Picture { flagged: false, ..p }))
        .collect())
}

/// Signature, and the chunk `IHDR`: length, kind, 13 bytes, check sum.
const AFTER_HEADER: usize = 8 + 4 + 4 + 13 + 4;

/// The same file under a header with another width and height.
fn resized_header(png: &[u8], width: u32, height: u32) -> Option<Vec<u8>> {
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&sizes, png.get(24..29)?].concat();
    Some([png.get(..8)?, &chunk(*b"IHDR", &header), png.get(AFTER_HEADER..)?].concat())
}

fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(0).to_be_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&kind);
    hasher.update(data);
    [&length, &kind, data, &hasher.finalize().to_be_bytes()[..]].concat()
}

fn photographs(
    works: &[PictureWork],
    change: &dyn Fn(Pixels) -> Pixels,
) -> Result<Vec<Picture>, CalibrateError> {
    works
        .iter()
        .map(|w| {
            let photo = w.face.as_ref().and_then(|f| decoded(&f.photo));
            let photo = photo.ok_or_else(|| CalibrateError::Request("a photograph cannot be read".into()))?;
            Ok(Picture { png: Bytes::from(pixels::encode_png(&change(photo))), flagged: false })
        })
        .collect()
}

fn mirrored(p: &Pixels) -> Pixels {
    let rows = p.rgb.chunks(p.width.max(1) * 3);
    let rgb = rows.flat_map(|row| row.as_chunks::<3>().0.iter().rev().flatten().copied()).collect();
    Pixels { width: p.width, height: p.height, rgb }
}

/// One picture upon another, its upper left corner at this place.
fn laid(under: &Pixels, over: &Pixels, left: usize, top: usize) -> Pixels {
    let mut rgb = under.rgb.clone();
    for (y, row) in over.rgb.chunks(over.width.max(1) * 3).enumerate() {
        let start = ((top + y) * under.width + left) * 3;
        let most = under.width.saturating_sub(left) * 3;
        for (to, from) in rgb.iter_mut().skip(start).take(most).zip(row) {
            *to = *from;
        }
    }
    Pixels { width: under.width, height: under.height, rgb }
}

fn decoded(bytes: &[u8]) -> Option<Pixels> {
    pixels::decode(bytes, &pixels::DecodeLimits::default()).ok().map(|d| d.pixels)
}

/// Up to six of 255 more or less, the same for the same picture.
fn noisy(picture: &Pixels) -> Pixels {
    let mut state =
        u64::from_le_bytes(*Digest::of(&picture.rgb).as_bytes().first_chunk::<8>().unwrap_or(&[1; 8]));
    let rgb = picture.rgb.iter().map(|v| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let off = u8::try_from((state >> 33) % 13).unwrap_or(6);
        v.saturating_add(off).saturating_sub(6)
    });
    Pixels { width: picture.width, height: picture.height, rgb: rgb.collect() }
}
