//! What people write to name a task on a registry.

use std::fmt;
use std::str::FromStr;

use nineteen_domain::Digest;
use semver::{Version, VersionReq};

use crate::place::Place;
use crate::refusal::{Refusal, cut};

/// Which of the artifacts in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The one with this digest: nothing that a registry does can change what this means.
    Digest(Digest),
    /// What a tag points at now, e.g. `1.2.3` or `latest`.
    Tag(String),
    /// The highest version among the tags that fits, e.g. `^1.2`, `>=1, <3`, `*`.
    Range(VersionReq),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "@{digest}"),
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Range(range) => write!(f, ":{range}"),
        }
    }
}

/// `registry/repository` with `:tag`, `:range` or `@digest`; with none of them, any released version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where.
    pub place: Place,
    /// Which.
    pub wanted: Wanted,
}

impl Reference {
    /// The tag, where the reference names one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::Tag(tag) => Some(tag),
            _ => None,
        }
    }
}

impl FromStr for Reference {
    type Err = Refusal;

    fn from_str(given: &str) -> Result<Self, Refusal> {
        let refuse = |why: String| Refusal::Reference { given: cut(given, 200), why };
        if given.len() > 1_000 {
            return Err(refuse("it is longer than 1000 characters".into()));
        }
        if let Some((place, digest)) = given.split_once('@') {
            let digest = digest.parse().map_err(|e: nineteen_domain::id::IdError| refuse(e.to_string()))?;
            // A tag before a digest is what some tools print: the digest decides.
            let place = place
                .rsplit_once(':')
                .filter(|(_, tag)| is_tag(tag) && !tag.contains('/'))
                .map_or(place, |(rest, _)| if rest.contains('/') { rest } else { place });
            return Ok(Self { place: Place::new(place)?, wanted: Wanted::Digest(digest) });
        }
        let path = given.find('/').ok_or_else(|| refuse("it names no repository".into()))?;
        let colon = given.get(path..).and_then(|rest| rest.find(':')).map(|at| at + path);
        let Some(colon) = colon else {
            return Ok(Self { place: Place::new(given)?, wanted: Wanted::Range(VersionReq::STAR) });
        };
        let (place, which) =
            (given.get(..colon).unwrap_or(given), given.get(colon + 1..).unwrap_or_default());
        let wanted = if is_tag(which) {
            Wanted::Tag(which.to_owned())
        } else {
            let range = VersionReq::parse(which).map_err(|e| {
                refuse(format!("'{}' is neither a tag nor a range of versions ({e})", cut(which, 80)))
            })?;
            Wanted::Range(range)
        };
        Ok(Self { place: Place::new(place)?, wanted })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.wanted)
    }
}

/// The distribution specification's `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(crate) fn is_tag(given: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&given.len()) && given.bytes().all(plain) && !given.starts_with(['.', '-'])
}

/// The highest of the tags that are versions within a range. Pre-releases count only where the range names one.
pub(crate) fn best<'a>(range: &VersionReq, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let versions = tags.filter_map(|tag| Some((Version::parse(tag).ok()?, tag)));
    versions.filter(|(version, _)| range.matches(version)).max_by(|a, b| a.0.cmp(&b.0)).map(|(_, tag)| tag)
}

/// What exists, for a message: versions from the highest down, then other tags; a few of them.
pub(crate) fn said<'a>(tags: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let mut sorted: Vec<(Option<Version>, &str)> = tags
        .filter(|tag| !tag.starts_with(crate::layout::COMPONENT_TAG_PREFIX))
        .map(|tag| (Version::parse(tag).ok(), tag))
        .collect();
    sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let names: Vec<&str> = sorted.iter().take(MOST).map(|(_, tag)| *tag).collect();
    match sorted.len() {
        0 => "nothing".into(),
        n if n > MOST => format!("{} and {} more", names.join(", "), n - MOST),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_ranges_and_digests_are_told_apart() {
        let digest = Digest::of(b"x");
        let wanted = |text: &str| text.parse::<Reference>().unwrap().wanted;
        assert_eq!(wanted("r.example/a:1.2.3"), Wanted::Tag("1.2.3".into()));
        assert_eq!(wanted("r.example/a:latest"), Wanted::Tag("latest".into()));
        assert_eq!(wanted("r.example/a:^1.2"), Wanted::Range("^1.2".parse().unwrap()));
        assert_eq!(wanted("r.example:5000/a:>=0.1, <0.3"), Wanted::Range(">=0.1, <0.3".parse().unwrap()));
        assert_eq!(wanted("r.example:5000/a"), Wanted::Range(VersionReq::STAR));
        assert_eq!(wanted(&format!("r.example/a@{digest}")), Wanted::Digest(digest));
        assert_eq!(wanted(&format!("r.example:5000/a:1.0.0@{digest}")), Wanted::Digest(digest));
        assert_eq!(wanted(&format!("r.example:5000/a@{digest}")), Wanted::Digest(digest));
    }

    #[test]
    fn what_is_no_reference_is_refused_in_one_line() {
        for bad in [
            "",
            "a",
            ":1",
            "r.example/a:^^1",
            "r.example/a@sha256:12",
            "r.example/a@md5:00",
            "r.example/a:",
            "r.example/a: x\ny",
        ] {
            let said = bad.parse::<Reference>().unwrap_err().to_string();
            assert!(said.contains("is no reference") && !said.contains('\n'), "{bad}: {said}");
        }
    }

    #[test]
    fn the_highest_version_wins_and_previews_only_when_asked_for() {
        let tags = ["0.1.0", "0.10.0", "0.9.3", "1.0.0-rc.1", "latest", "component-0.11.0"];
        let pick = |range: &str| best(&range.parse().unwrap(), tags.into_iter());
        assert_eq!(pick("*"), Some("0.10.0"));
        assert_eq!(pick("^0.9"), Some("0.9.3"));
        assert_eq!(pick(">=1.0.0-rc.0"), Some("1.0.0-rc.1"));
        assert_eq!(pick("^2"), None);
        assert_eq!(said(tags.into_iter()), "1.0.0-rc.1, 0.10.0, 0.9.3, 0.1.0, latest");
    }
}
