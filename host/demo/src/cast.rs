//! Who plays. Numbers are what a laptop with two cores can serve; what they earn is the mechanism's business.

use crate::characters::Character;

/// A miner of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Name of its process and of its kind in reports.
    pub kind: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Its character; `None` is the reference miner as it is.
    pub character: Option<Character>,
    /// Announced chat tokens per hour.
    pub chat_per_hour: u32,
    /// Announced vectors per hour.
    pub vectors_per_hour: u32,
    /// Announced steps over 64 × 64 pixels per hour, of images and of avatars each.
    pub steps_per_hour: u32,
    /// Tokens, or steps, per second that one reply is held to.
    pub pace: Option<u32>,
    /// Requests per minute that it serves of each task, one at a time; the rest gets 429.
    pub requests_per_minute: Option<u32>,
}

/// What the faster honest miner announces.
const CHAT: u32 = 10_000;
const VECTORS: u32 = 3_600;
const STEPS: u32 = 5_400;

const FAST: Role = Role {
    kind: "honest-fast",
    about: "serves what it announces, as fast as this machine goes",
    character: None,
    chat_per_hour: CHAT,
    vectors_per_hour: VECTORS,
    steps_per_hour: STEPS,
    pace: None,
    requests_per_minute: None,
};

/// The six, in the order of their uids (1 to 6; uid 0 is the validator).
pub const CAST: [Role; 6] = [
    FAST,
    Role {
        kind: "honest-slow",
        about: "honest, on a machine of half the size",
        chat_per_hour: CHAT / 2,
        vectors_per_hour: VECTORS / 2,
        steps_per_hour: STEPS / 2,
        pace: Some(8),
        ..FAST
    },
    Role {
        kind: "flaky",
        about: "equal to the fast one, but fails one request in four",
        character: Some(Character::Flaky),
        ..FAST
    },
    Role {
        kind: "int8",
        about: "runs dynamically quantised int8 weights and says nothing",
        character: Some(Character::Int8),
        ..FAST
    },
    Role {
        kind: "impostor",
        about: "answers with canned text, made-up vectors and pictures of one step, at once",
        character: Some(Character::Impostor),
        ..FAST
    },
    Role {
        kind: "boaster",
        about: "announces four times what it serves and rate-limits the rest",
        chat_per_hour: CHAT * 4,
        vectors_per_hour: VECTORS * 4,
        steps_per_hour: STEPS * 4,
        requests_per_minute: Some(9),
        ..FAST
    },
];
