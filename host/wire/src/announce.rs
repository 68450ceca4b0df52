//! What a miner announces, read without trust.
//!
//! Not for deciding what a capacity is worth or clamping it: that is `mechanism`. The one idea: a bad number
//! spoils that task of that miner and nothing else, so each capacity is read for itself; only a reply that is
//! no announcement at all spoils the whole of it.

use std::collections::BTreeMap;
use std::fmt;

use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::{Exchange, ledger::Failure};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::PROTOCOL;

/// Tasks that one announcement may name.
pub const MAX_TASKS: usize = 256;

/// Why there is no announcement. Costs the miner the period's capacities, all of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceFault {
    /// The transport failed, or the status was not 200.
    #[error("no announcement: {0:?}; the miner has to answer GET /nineteen/v1/capacity")]
    Transport(ProbeClass),
    /// Too slow, in any phase.
    #[error("the announcement came too late: answer it within seconds")]
    TooSlow,
    /// Too many bytes, or too many tasks.
    #[error("the announcement is too long: announce only the subnet's tasks")]
    TooLong,
    /// Not the JSON that the schema asks for; says where.
    #[error("the announcement is not one: {0}; see docs/schemas/capacity.json")]
    NotAnAnnouncement(String),
    /// Another protocol. Escaped where shown: it is the miner's text, and it goes to our log.
    #[error("the announcement speaks {0:?} and we speak nineteen/1")]
    Protocol(String),
    /// Capacities for another length of period than was asked for.
    #[error("the announcement is for another period than the one asked for: scale to ?period_s")]
    Period,
}

impl AnnounceFault {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Transport(_) => "wire.announce.transport",
            Self::TooSlow => "wire.announce.too-slow",
            Self::TooLong => "wire.announce.too-long",
            Self::NotAnAnnouncement(_) => "wire.announce.format",
            Self::Protocol(_) => "wire.announce.protocol",
            Self::Period => "wire.announce.period",
        }
    }
}

/// Why one capacity is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum CapacityFault {
    /// Not announced.
    #[error("not announced")]
    Missing,
    /// null, a string, a list …
    #[error("not a number")]
    NotANumber,
    /// Too large for a double.
    #[error("not finite")]
    NotFinite,
    /// Below zero.
    #[error("negative")]
    Negative,
    /// Announced twice.
    #[error("announced twice")]
    Duplicate,
}

impl CapacityFault {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "wire.capacity.missing",
            Self::NotANumber => "wire.capacity.not-a-number",
            Self::NotFinite => "wire.capacity.not-finite",
            Self::Negative => "wire.capacity.negative",
            Self::Duplicate => "wire.capacity.duplicate",
        }
    }
}

/// Capacities by the task names that the miner used, known to us or not: units per period, finite and ≥ 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Announcement {
    /// By task name. Surplus names are kept and harmless: look up what you planned to ask.
    pub capacities: BTreeMap<String, Result<f64, CapacityFault>>,
}

impl Announcement {
    /// The capacity of one task.
    ///
    /// # Errors
    /// [`CapacityFault`]; missing is one.
    pub fn of(&self, task: &str) -> Result<f64, CapacityFault> {
        self.capacities.get(task).copied().unwrap_or(Err(CapacityFault::Missing))
    }

    /// Reads the reply to a capacity request that asked for periods of `period_s` seconds.
    ///
    /// # Errors
    /// [`AnnounceFault`].
    pub fn read(exchange: &Exchange, period_s: u64) -> Result<Self, AnnounceFault> {
        match ProbeClass::of(exchange) {
            ProbeClass::Answered => Self::parse(&exchange.body(), period_s),
            ProbeClass::Failed(Failure::TooLarge) => Err(AnnounceFault::TooLong),
            ProbeClass::Failed(
                Failure::ConnectTimeout
                | Failure::FirstByteTimeout
                | Failure::IdleTimeout
                | Failure::TotalTimeout,
            ) => Err(AnnounceFault::TooSlow),
            other => Err(AnnounceFault::Transport(other)),
        }
    }

    /// Reads the body of such a reply.
    ///
    /// # Errors
    /// [`AnnounceFault`].
    pub fn parse(body: &[u8], period_s: u64) -> Result<Self, AnnounceFault> {
        let not_one = |why: String| AnnounceFault::NotAnAnnouncement(why.chars().take(160).collect());
        let raw: Raw<'_> = serde_json::from_slice(body).map_err(|e| not_one(e.to_string()))?;
        if raw.protocol != PROTOCOL {
            return Err(AnnounceFault::Protocol(raw.protocol.chars().take(40).collect()));
        }
        #[expect(clippy::cast_precision_loss, reason = "periods are far below 2^53 seconds")]
        let asked = period_s as f64;
        if number(raw.period_s) != Ok(asked) {
            return Err(AnnounceFault::Period);
        }
        if raw.capacities.0.len() > MAX_TASKS {
            return Err(AnnounceFault::TooLong);
        }
        let mut capacities = BTreeMap::new();
        for (name, value) in raw.capacities.0 {
            // JSON has names that are no Unicode (`"\ud800"`). No task is called that, and its neighbours
            // have nothing to do with it.
            let Ok(task) = serde_json::from_str::<String>(name.get()) else { continue };
            let capacity = number(value).and_then(|c| match c {
                c if c < 0.0 => Err(CapacityFault::Negative),
                // Also turns -0 into 0.
                c => Ok(c + 0.0),
            });
            capacities.entry(task).and_modify(|c| *c = Err(CapacityFault::Duplicate)).or_insert(capacity);
        }
        Ok(Self { capacities })
    }
}

/// A JSON number as a finite double. `1e999` is JSON and not finite; `NaN` is not JSON at all.
fn number(raw: &RawValue) -> Result<f64, CapacityFault> {
    let text = raw.get();
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return Err(CapacityFault::NotANumber);
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n),
        Ok(_) => Err(CapacityFault::NotFinite),
        Err(_) => Err(CapacityFault::NotANumber),
    }
}

// Unknown fields are ignored: a newer miner may say more.
#[derive(Deserialize)]
struct Raw<'a> {
    protocol: String,
    #[serde(borrow)]
    period_s: &'a RawValue,
    #[serde(borrow)]
    capacities: Pairs<'a>,
}

/// A JSON object in its order, duplicates kept, names and values unread.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of capacities by task")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    // One more than allowed is enough to know.
                    if all.len() <= MAX_TASKS {
                        all.push(pair);
                    }
                }
                Ok(Pairs(all))
            }
        }
        d.deserialize_map(V)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(capacities: &str) -> Result<Announcement, AnnounceFault> {
        let body = format!(r#"{{"protocol":"nineteen/1","period_s":3600,"capacities":{capacities}}}"#);
        Announcement::parse(body.as_bytes(), 3600)
    }

    #[test]
    fn each_capacity_is_read_for_itself() {
        let a = parse(
            r#"{"a": 10, "b": 1.5e3, "c": null, "d": "7", "e": -1, "f": 1e999, "g": [1], "h": true, "i": -0.0, "j": 1, "j": 2}"#,
        )
        .unwrap();
        assert_eq!(a.of("a"), Ok(10.0));
        assert_eq!(a.of("b"), Ok(1500.0));
        for (task, fault) in [
            ("c", CapacityFault::NotANumber),
            ("d", CapacityFault::NotANumber),
            ("e", CapacityFault::Negative),
            ("f", CapacityFault::NotFinite),
            ("g", CapacityFault::NotANumber),
            ("h", CapacityFault::NotANumber),
            ("j", CapacityFault::Duplicate),
            ("z", CapacityFault::Missing),
        ] {
            assert_eq!(a.of(task), Err(fault), "{task}");
        }
        assert_eq!(a.of("i").unwrap().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn what_is_no_announcement_is_a_typed_fault() {
        for bad in ["{\"a\": NaN}", "{\"a\": Infinity}", "[]", "null", "7", "{\"a\": 1", "{\"a\":}"] {
            assert_eq!(parse(bad).unwrap_err().code(), "wire.announce.format", "{bad}");
        }
        for bad in ["", "{}", "\u{feff}{}", "not json", "[1]"] {
            assert_eq!(Announcement::parse(bad.as_bytes(), 1).unwrap_err().code(), "wire.announce.format");
        }
        let body = br#"{"protocol":"nineteen/9","period_s":3600,"capacities":{}}"#;
        assert_eq!(Announcement::parse(body, 3600).unwrap_err().code(), "wire.announce.protocol");
        let body = br#"{"protocol":"nineteen/1","period_s":3600,"capacities":{}}"#;
        assert_eq!(Announcement::parse(body, 60).unwrap_err(), AnnounceFault::Period);
        let many = (0..300).map(|i| format!("\"t{i}\":1")).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&format!("{{{many}}}")).unwrap_err(), AnnounceFault::TooLong);
    }

    #[test]
    fn a_nesting_bomb_is_only_a_bad_number() {
        let depth = 30_000;
        let bomb = format!(r#"{{"a": {}{}, "b": 3}}"#, "[".repeat(depth), "]".repeat(depth));
        match parse(&bomb) {
            Ok(a) => {
                assert_eq!(a.of("a"), Err(CapacityFault::NotANumber));
                assert_eq!(a.of("b"), Ok(3.0));
            }
            Err(e) => assert_eq!(e.code(), "wire.announce.format"),
        }
        assert!(parse(&"{\"a\":".repeat(depth)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_of_a_miner_can_panic_the_reader(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = Announcement::parse(&body, 60);
        }

        #[test]
        fn what_is_read_is_finite_and_not_negative(n in proptest::num::f64::ANY) {
            let text = serde_json::json!({ "a": n }).to_string();
            if let Ok(c) = parse(&text).unwrap().of("a") {
                assert!(c.is_finite() && c >= 0.0);
            }
        }
    }
}
