//! Tasks as OCI artifacts: packed to the bit, carried by any container registry, kept in a cache by digest.
//!
//! Not for deciding whether a task is good, wanted or safe: nothing here loads a component. The one idea: **a
//! registry is a courier**. What it brings is held against digests; where it points to and how much it sends is
//! decided here and not there.
//!
//! * [`Packed`] turns a task's folder and its component into an artifact, the same bytes each time, and
//!   [`Unpacked`] reads one back.
//! * [`Courier`] publishes and pulls, by digest, tag or range of versions. The talking is done by `oci-client`; a
//!   gate that all its connections go through (`gate`) bounds where to, how much and how long.
//! * [`Cache`] serves what was pulled before when the registry is away.
//!
//! ```no_run
//! # async fn example() -> Result<(), nineteen_oci::Refusal> {
//! use nineteen_oci::{Cache, Courier, Credentials, Reference, Settings};
//!
//! let settings = Settings::default();
//! let cache = Cache::open("cache/oci".as_ref(), settings.cache_bytes)?;
//! let courier = Courier::new(settings, Some(cache), Credentials::find);
//! let reference: Reference = "registry.example/tasks/chat:^1.2".parse()?;
//! let pulled = courier.pull(&reference, &|event| eprintln!("{event}")).await?;
//! println!("{} {}", pulled.digest, pulled.task.manifest().name);
//! # Ok(())
//! # }
//! ```

mod cache;
mod component;
mod courier;
mod credentials;
mod event;
mod gate;
mod layout;
mod pack;
mod place;
mod reference;
mod refusal;
mod registry;
mod set;
mod settings;
mod unpack;

pub use cache::Cache;
pub use courier::Courier;
pub use credentials::{Credentials, PASSWORD_VARIABLE, USERNAME_VARIABLE};
pub use event::{Event, Origin, Published, Pulled};
pub use layout::{
    ASSET_MEDIA_TYPE, CALIBRATION_MEDIA_TYPE, COMPONENT_MEDIA_TYPE, COMPONENT_TAG_PREFIX, CONFIG_MEDIA_TYPE,
    Descriptor, MANIFEST_MEDIA_TYPE, TASK_MEDIA_TYPE,
};
pub use pack::{Blob, Packed};
pub use place::Place;
pub use reference::{Reference, Wanted};
pub use refusal::Refusal;
pub use set::{SET_CONFIG_MEDIA_TYPE, SET_FILE_MEDIA_TYPE, SET_MEDIA_TYPE, SIGNATURES_MEDIA_TYPE, SetFiles};
pub use settings::{Limits, Settings};
pub use unpack::Unpacked;
