//! Signed task sets: what a subnet's owner proposes, and how a validator follows without being steered.
//!
//! An owner writes a [`Set`]: tasks by digest, weights, a policy, and the moment at which it takes effect. m of n
//! owner keys sign its meaning ([`canonical`]). A validator's [`Follower`] asks a [`Source`] for the newest set,
//! [`decide`]s by the set that runs now, by the validator's own [`Limits`] and by the time, keeps what it accepted
//! until its moment, and says everything it did as an [`Event`].
//!
//! Not for loading plugins and not for swapping live tasks: [`plan`] says what a registry has to do, and
//! [`InForce::taskset`] is a folder that it can read.
//!
//! The one idea: a set is data that is either accepted whole, for a typed reason, or changes nothing.

pub mod canonical;
mod compose;
mod decide;
mod diff;
mod event;
mod files;
mod follower;
mod https;
mod keys;
mod limits;
mod plan;
mod publish;
mod refusal;
mod set;
mod signature;
mod source;
mod state;
mod status;

pub use compose::{Composed, Terms, compose};
pub use decide::{Decision, Proposed, Standing, admit, decide};
pub use diff::{Diff, FieldChange};
pub use event::{Event, Stamped};
pub use files::{FileError, Kept, checkout};
pub use follower::{Follower, FollowerError, FollowerOptions, InForce};
pub use https::{HttpsOptions, HttpsSource};
pub use keys::{OwnerKeyError, Passphrase, create_owner_key, read_owner_key};
pub use limits::{Limits, Objection};
pub use plan::{Change, Pins, Plan, plan};
pub use publish::{Published, publish};
pub use refusal::{Refusal, Tally, Whose};
pub use set::{Entry, Moment, Notice, Now, Owner, SET_FILE, SIGNATURES_FILE, Set};
pub use signature::{OneSignature, Signatures};
pub use source::{Fetched, FolderSource, Source, SourceError};
pub use state::Operator;
pub use status::{HeldLine, SetLine, Status};
