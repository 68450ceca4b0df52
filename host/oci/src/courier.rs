//! Publishing and pulling whole tasks: the registry asked, the cache filled, everything held against digests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use nineteen_domain::Digest;
use semver::{Version, VersionReq};

use crate::cache::{Cache, Kept};
use crate::credentials::Credentials;
use crate::event::{Event, Origin, Published, Pulled};
use crate::layout::{COMPONENT_TAG_PREFIX, Layout};
use crate::pack::Packed;
use crate::place::Place;
use crate::reference::{Reference, Wanted, best, said};
use crate::refusal::Refusal;
use crate::registry::{Found, Registry};
use crate::settings::{Limits, Settings};
use crate::unpack::Unpacked;

/// How credentials for a registry are found.
type Finder = dyn Fn(&Settings, &str) -> Result<Option<Credentials>, Refusal> + Send + Sync;

/// Carries tasks to registries and back.
#[derive(Clone)]
pub struct Courier {
    settings: Arc<Settings>,
    limits: Limits,
    cache: Option<Cache>,
    find: Arc<Finder>,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier")
            .field("settings", &self.settings)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Courier {
    /// A courier. `find` gives the credentials for a registry: usually [`Credentials::find`].
    pub fn new(
        settings: Settings,
        cache: Option<Cache>,
        find: impl Fn(&Settings, &str) -> Result<Option<Credentials>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self { settings: Arc::new(settings), limits: Limits::default(), cache, find: Arc::new(find) }
    }

    /// With other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(crate) async fn open(&self, place: &Place) -> Result<Registry, Refusal> {
        let credentials = (self.find)(&self.settings, place.registry())?;
        Registry::open(place, &self.settings, credentials.as_ref(), self.limits).await
    }

    /// Bounds the whole of something in time.
    pub(crate) async fn within<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let late =
            |_| Refusal::TooSlow { what: what.to_owned(), seconds: self.limits.total.as_secs().max(1) };
        tokio::time::timeout(self.limits.total, work).await.map_err(late)?
    }

    /// The tags of a repository, in the registry's order.
    ///
    /// # Errors
    /// A [`Refusal`] of the registry or about it.
    pub async fn tags(&self, place: &Place) -> Result<Vec<String>, Refusal> {
        self.within(&place.to_string(), async { self.open(place).await?.tags().await }).await
    }

    /// Publishes a task under its version, or under the tag of `to`; the component alone goes to
    /// `component-<tag>`. The task's tag is set last: whoever sees it finds everything.
    ///
    /// # Errors
    /// [`Refusal::Taken`] if that version is there with other content and `replace` is false;
    /// [`Refusal::WrongVersion`], [`Refusal::Reference`]; a [`Refusal`] of the registry or about it.
    pub async fn publish(
        &self,
        packed: &Packed,
        to: &Reference,
        replace: bool,
        tell: &(dyn Fn(Event) + Sync),
    ) -> Result<Published, Refusal> {
        let tag = publish_tag(packed, to)?;
        if self.settings.offline {
            return Err(Refusal::Away {
                registry: to.place.registry().into(),
                why: "oci.offline is set".into(),
            });
        }
        self.within(&to.to_string(), async {
            let registry = self.open(&to.place).await?;
            let mut published = Published {
                digest: packed.digest(),
                component_artifact: packed.component_artifact_digest(),
                component_tag: format!("{COMPONENT_TAG_PREFIX}{tag}"),
                sent_bytes: 0,
                unchanged: false,
                tag,
            };
            registry.log_in().await?;
            match registry.manifest_of_tag(&published.tag).await {
                Ok(there) if there.digest == published.digest => {
                    published.unchanged = true;
                    return Ok(published);
                }
                // A tag that is no version says "whatever is newest" and may move.
                Ok(there) if !replace && Version::parse(&published.tag).is_ok() => {
                    let what = format!("{}:{}", to.place, published.tag);
                    return Err(Refusal::Taken { what, there: there.digest });
                }
                Ok(_) | Err(Refusal::NotFound { .. }) => {}
                Err(refusal) => return Err(refusal),
            }
            let (task, alone) = (packed.task(), packed.component_alone());
            for blob in packed.layers().iter().chain([&task.config, &alone.config]) {
                let file = blob.descriptor.name().to_owned();
                if registry.has(&blob.descriptor.digest).await? {
                    tell(Event::There { file });
                    continue;
                }
                tell(Event::Sending { file, bytes: blob.descriptor.bytes });
                registry.push_blob(&published.tag, blob).await?;
                published.sent_bytes += blob.descriptor.bytes;
            }
            registry.push_manifest(&published.component_tag, alone).await?;
            registry.push_manifest(&published.tag, task).await?;
            Ok(published)
        })
        .await
    }

    /// Pulls a task. A digest that the cache holds whole asks nobody; a tag or range asks the registry, and the
    /// cache only when the registry is away.
    ///
    /// # Errors
    /// A [`Refusal`]: of the reference, of the registry or about it, of what it sent, or of the disk.
    pub async fn pull(
        &self,
        reference: &Reference,
        tell: &(dyn Fn(Event) + Sync),
    ) -> Result<Pulled, Refusal> {
        self.within(&reference.to_string(), self.pull_inner(reference, tell)).await
    }

    async fn pull_inner(
        &self,
        reference: &Reference,
        tell: &(dyn Fn(Event) + Sync),
    ) -> Result<Pulled, Refusal> {
        let place = &reference.place;
        let not_cached = |why: &str| Refusal::NotCached { what: reference.to_string(), why: why.to_owned() };
        let mut session = None;
        let (tag, digest, manifest, alone) = match &reference.wanted {
            Wanted::Digest(digest) => (None, *digest, None, None),
            wanted => match self.resolve(place, wanted, &mut session).await {
                Ok((tag, found)) => (Some(tag), found.digest, Some(found.bytes), None),
                Err(refusal) if refusal.is_away() => {
                    let why = match &refusal {
                        _ if self.settings.offline => "oci.offline is set".to_owned(),
                        other => other.to_string(),
                    };
                    let Some((tag, digest)) = self.remembered(place, wanted)? else {
                        return Err(if self.settings.offline { not_cached(&why) } else { refusal });
                    };
                    tell(Event::Away { why: why.clone() });
                    (Some(tag), digest, None, Some(why))
                }
                Err(refusal) => return Err(refusal),
            },
        };
        if let Some(tag) = &tag {
            tell(Event::Resolved { tag: tag.clone(), digest });
        }
        let what = reference.to_string();
        let may_ask = !self.settings.offline && alone.is_none();
        let why_not = alone.clone().unwrap_or_else(|| "oci.offline is set".into());
        let mut asked = manifest.is_some();
        let mut keep = Keep { cache: self.cache.as_ref(), tell, said: false };

        let manifest = match (manifest, keep.get("manifest", &digest).await?) {
            (Some(bytes), _) | (None, Some(bytes)) => bytes,
            (None, None) if may_ask => {
                asked = true;
                self.session(place, &mut session).await?.manifest_of(&digest).await?.bytes
            }
            (None, None) => return Err(not_cached(&why_not)),
        };
        let layout = Layout::read(&what, &manifest, &self.limits)?;
        keep.put(&manifest).await?;

        let mut blobs: BTreeMap<Digest, Bytes> = BTreeMap::new();
        for blob in layout.blobs() {
            if blobs.contains_key(&blob.digest) {
                continue;
            }
            let bytes = match keep.get(blob.name(), &blob.digest).await? {
                Some(bytes) if bytes.len() as u64 == blob.bytes => bytes,
                Some(bytes) => {
                    let why = format!("the manifest says {} bytes, and it has {}", blob.bytes, bytes.len());
                    return Err(Refusal::Artifact { what: format!("{what}: {}", blob.name()), why });
                }
                None if may_ask => {
                    asked = true;
                    let fetching =
                        |got| tell(Event::Fetching { file: blob.name().to_owned(), got, of: blob.bytes });
                    let bytes = self.session(place, &mut session).await?.blob(blob, &fetching).await?;
                    keep.put(&bytes).await?;
                    bytes
                }
                None => return Err(not_cached(&why_not)),
            };
            blobs.insert(blob.digest, bytes);
        }
        let task = Unpacked::new(&what, &layout, &blobs)?;
        if let Some((tag, version)) = tag.as_deref().and_then(|tag| Some((tag, Version::parse(tag).ok()?))) {
            let read = &task.manifest().version;
            if version != *read {
                return Err(Refusal::WrongVersion { what, tag: tag.into(), version: read.to_string() });
            }
        }
        // Only now: a tag that led to nothing good is not remembered.
        if let (Some(tag), Some(cache), None) = (&tag, &self.cache, &alone) {
            cache.saw(place, tag, &digest)?;
        }
        let origin = match alone {
            Some(why) => Origin::CacheAlone { why },
            None if asked => Origin::Registry,
            None => Origin::Cache,
        };
        Ok(Pulled { digest, tag, origin, task })
    }

    /// The session, opened when it is first needed.
    async fn session<'a>(
        &self,
        place: &Place,
        open: &'a mut Option<Registry>,
    ) -> Result<&'a Registry, Refusal> {
        let registry = match open.take() {
            Some(registry) => registry,
            None => self.open(place).await?,
        };
        Ok(open.insert(registry))
    }

    /// Asks the registry what a tag or range means.
    async fn resolve(
        &self,
        place: &Place,
        wanted: &Wanted,
        session: &mut Option<Registry>,
    ) -> Result<(String, Found), Refusal> {
        if self.settings.offline {
            return Err(Refusal::Away {
                registry: place.registry().into(),
                why: "oci.offline is set".into(),
            });
        }
        let registry = self.session(place, session).await?;
        match wanted {
            Wanted::Tag(tag) => match registry.manifest_of_tag(tag).await {
                Err(Refusal::NotFound { .. }) => {
                    let tags = registry.tags().await?;
                    let there = said(tags.iter().map(String::as_str));
                    Err(Refusal::UnknownTag { place: place.to_string(), tag: tag.clone(), there })
                }
                found => Ok((tag.clone(), found?)),
            },
            Wanted::Range(range) => {
                let tags = registry.tags().await?;
                let tag = best(range, tags.iter().map(String::as_str))
                    .ok_or_else(|| no_version(place, range, &said(tags.iter().map(String::as_str))))?;
                Ok((tag.to_owned(), registry.manifest_of_tag(tag).await?))
            }
            Wanted::Digest(digest) => Ok((String::new(), registry.manifest_of(digest).await?)),
        }
    }

    /// What a tag or range meant when it was last seen.
    fn remembered(&self, place: &Place, wanted: &Wanted) -> Result<Option<(String, Digest)>, Refusal> {
        let Some(cache) = &self.cache else { return Ok(None) };
        let seen = cache.seen(place)?;
        let tag = match wanted {
            Wanted::Tag(tag) => Some(tag.as_str()),
            Wanted::Range(range) => best(range, seen.keys().map(String::as_str)),
            Wanted::Digest(_) => None,
        };
        Ok(tag.and_then(|tag| Some((tag.to_owned(), *seen.get(tag)?))))
    }
}

fn no_version(place: &Place, range: &VersionReq, there: &str) -> Refusal {
    Refusal::NoVersion { place: place.to_string(), range: range.to_string(), there: there.to_owned() }
}

/// Under which tag a task goes.
fn publish_tag(packed: &Packed, to: &Reference) -> Result<String, Refusal> {
    let version = &packed.manifest().version;
    match &to.wanted {
        Wanted::Range(range) if *range == VersionReq::STAR => Ok(version.to_string()),
        Wanted::Tag(tag) if tag.starts_with(COMPONENT_TAG_PREFIX) => Err(Refusal::Reference {
            given: to.to_string(),
            why: format!("tags that begin with {COMPONENT_TAG_PREFIX} hold components alone"),
        }),
        Wanted::Tag(tag) => match Version::parse(tag) {
            Ok(tagged) if tagged != *version => Err(Refusal::WrongVersion {
                what: to.to_string(),
                tag: tag.clone(),
                version: version.to_string(),
            }),
            _ => Ok(tag.clone()),
        },
        _ => Err(Refusal::Reference {
            given: to.to_string(),
            why: "a task is published under one tag: name it, or leave it out for the version of task.toml"
                .into(),
        }),
    }
}

/// The cache off the threads that serve others, and its refusals to keep as events.
struct Keep<'a> {
    cache: Option<&'a Cache>,
    tell: &'a (dyn Fn(Event) + Sync),
    said: bool,
}

impl Keep<'_> {
    async fn get(&self, file: &str, digest: &Digest) -> Result<Option<Bytes>, Refusal> {
        let Some(cache) = self.cache.cloned() else { return Ok(None) };
        let digest = *digest;
        match blocking(move || cache.read(&digest)).await? {
            Kept::Whole(bytes) => Ok(Some(bytes)),
            Kept::Missing => Ok(None),
            Kept::Damaged => {
                (self.tell)(Event::Damaged { file: file.to_owned() });
                Ok(None)
            }
        }
    }

    async fn put(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        let Some(cache) = self.cache.cloned() else { return Ok(()) };
        let bytes = bytes.clone();
        match blocking(move || cache.put(&bytes)).await {
            Err(refusal) if !self.said => {
                self.said = true;
                (self.tell)(Event::NotKept { why: refusal.to_string() });
            }
            // A task that was verified is good without being kept.
            _ => {}
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let gone = |e: tokio::task::JoinError| Refusal::Artifact { what: "cache".into(), why: e.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}
