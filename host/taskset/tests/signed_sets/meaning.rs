//! What is signed is what a set means: all of it, and nothing else.

use nineteen_domain::Digest;
use nineteen_taskset::{Refusal, Set, canonical};
use proptest::prelude::*;
use serde_json::Value;

use crate::common::{DAY, Files, NOW, first_set, keys, owner, signed, written};

fn set() -> Set {
    let mut files = Files::default();
    let mut set = first_set(&mut files, owner(2, &keys(1..4)));
    set.share_multiplier = Some(1.5);
    set.tasks[0].calibration = Some(Digest::of(b"calibration"));
    set
}

/// Every leaf of a document, with a changed value.
fn changed(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, inner)| {
                changed(inner).into_iter().map(move |new| {
                    let mut copy = fields.clone();
                    copy.insert(key.clone(), new);
                    Value::Object(copy)
                })
            })
            .collect(),
        Value::Array(items) => (0..items.len())
            .flat_map(|i| {
                changed(&items[i]).into_iter().map(move |new| {
                    let mut copy = items.clone();
                    copy[i] = new;
                    Value::Array(copy)
                })
            })
            .collect(),
        Value::Number(n) => match n.as_u64() {
            Some(n) => vec![Value::from(n + 1), Value::from(n.saturating_sub(1).min(n ^ 1))],
            None => {
                let x = n.as_f64().unwrap();
                vec![Value::from(x.next_up()), Value::from(x.next_down())]
            }
        },
        Value::String(s) => {
            let mut digits = s.clone().into_bytes();
            let last = digits.last_mut().unwrap();
            *last = if *last == b'1' { b'2' } else { b'1' };
            vec![Value::from(format!("{s}x")), Value::from(String::from_utf8(digits).unwrap())]
        }
        Value::Bool(b) => vec![Value::Bool(!b)],
        Value::Null => vec![],
    }
}

#[test]
fn any_change_of_meaning_is_another_set() {
    let mut out = set();
    written(&mut out, |_| {});
    let mut tried = 0;
    for set in [set(), out] {
        let before = canonical::bytes(&set).unwrap();
        for other in changed(&serde_json::to_value(&set).unwrap()) {
            // Some changes are no sets at all: a digest with an x, a policy of a kind that does not exist.
            let Ok(other) = serde_json::from_value::<Set>(other) else { continue };
            assert_ne!(canonical::bytes(&other).unwrap(), before, "{other:?}");
            tried += 1;
        }
        let mut fewer = set.clone();
        fewer.tasks.pop();
        let mut without = set.clone();
        without.tasks[0].calibration = None;
        let mut plain = set.clone();
        plain.share_multiplier = None;
        for other in [fewer, without, plain] {
            assert_ne!(canonical::bytes(&other).unwrap(), before);
        }
    }
    assert!(tried > 60, "only {tried} changes were sets");
}

#[test]
fn layout_comments_order_and_line_endings_mean_nothing() {
    let mut out = set();
    written(&mut out, |p| p.name = "ours".into());
    out.policy_digest = Digest::of(b"whatever: only read here");
    for set in [set(), out] {
        let text = set.text().unwrap();
        let plain = toml::to_string(&set).unwrap();
        let mut turned = set.clone();
        turned.tasks.reverse();
        turned.owner.keys.reverse();
        for other in [
            text.clone(),
            plain,
            text.replace('\n', "\r\n"),
            text.replace(" = ", "="),
            format!("{text}\n# a word of nobody's\n"),
            turned.text().unwrap(),
        ] {
            let read: Set = toml::from_str(&other).unwrap();
            assert_eq!(read.digest(), set.digest(), "{other}");
        }
    }
}

#[test]
fn what_is_written_reads_back_to_the_bit() {
    let mut set = set();
    for weights in [[0.6, 0.4], [1.0, 0.0], [0.1 + 0.2, 1.0 - (0.1 + 0.2)], [1e-300, 1.0]] {
        set.tasks.iter_mut().zip(weights).for_each(|(t, w)| t.weight = w);
        let read = Set::read(set.text().unwrap().as_bytes()).unwrap();
        assert_eq!(read, set);
        assert_eq!(read.digest(), set.digest());
    }
}

#[test]
fn zero_has_one_sign() {
    let (mut a, mut b) = (set(), set());
    (a.tasks[0].weight, a.tasks[1].weight) = (1.0, 0.0);
    (b.tasks[0].weight, b.tasks[1].weight) = (1.0, -0.0);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn a_policy_with_a_number_that_is_none_has_no_signature() {
    let mut set = set();
    written(&mut set, |p| p.planning.share_multiplier = f64::NAN);
    assert!(matches!(canonical::bytes(&set), Err(Refusal::Field { .. })));
    written(&mut set, |p| p.planning.share_multiplier = f64::INFINITY);
    assert!(matches!(set.check(), Err(Refusal::Field { .. })));
}

#[test]
fn the_bytes_that_are_signed_never_change_by_accident() {
    // A golden value: whoever changes the encoding makes every published signature worthless.
    let bytes = canonical::bytes(&set()).unwrap();
    assert!(bytes.starts_with(b"s\0\0\0\0\0\0\0\x13nineteen-taskset-v1o"));
    let message = canonical::message(&Digest::from_bytes([0xab; 32]));
    let expected = format!("nineteen-taskset-v1 sha256:{}", "ab".repeat(32));
    assert_eq!(String::from_utf8(message).unwrap(), expected);
}

#[test]
fn a_set_that_breaks_its_own_rules_is_refused_in_one_line() {
    let good = set();
    type Break = fn(&mut Set);
    let cases: [(&str, Break); 18] = [
        ("taskset.no-tasks", |s| s.tasks.clear()),
        ("taskset.weights", |s| s.tasks[0].weight = 0.5),
        ("taskset.field", |s| s.tasks[0].weight = f64::NAN),
        ("taskset.field", |s| (s.tasks[0].weight, s.tasks[1].weight) = (1.4, -0.4)),
        ("taskset.field", |s| s.tasks[1].name = s.tasks[0].name.clone()),
        ("taskset.field", |s| s.name = "First Light".into()),
        ("taskset.field", |s| s.share_multiplier = Some(0.0)),
        ("taskset.unknown-policy", |s| s.policy = nineteen_domain::task::PolicyChoice::Named("mine".into())),
        ("taskset.other-policy", |s| s.policy_digest = Digest::of(b"other numbers")),
        ("taskset.field", |s| s.published = nineteen_taskset::Moment::Block(7)),
        ("taskset.field", |s| s.effective = nineteen_taskset::Moment::UnixS(NOW - 1)),
        ("taskset.field", |s| s.expires_unix_s = NOW),
        ("taskset.field", |s| s.notice.seconds = 400 * DAY),
        ("taskset.field", |s| s.owner.threshold = 0),
        ("taskset.field", |s| s.owner.threshold = 4),
        ("taskset.field", |s| s.owner.keys.clear()),
        ("taskset.field", |s| s.owner.keys[1] = s.owner.keys[0]),
        ("taskset.field", |s| s.owner.keys[0] = nineteen_domain::Hotkey::from_bytes([0; 32])),
    ];
    good.check().unwrap();
    for (code, change) in cases {
        let mut bad = good.clone();
        change(&mut bad);
        let refusal = bad.check().unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(!refusal.to_string().contains('\n'), "{refusal}");
    }
}

#[test]
fn files_that_are_no_sets_are_refused_by_what_they_are() {
    let text = set().text().unwrap();
    let long = vec![b'#'; 300 << 10];
    for (bytes, code) in [
        (long.as_slice(), "taskset.too-long"),
        (b"\xff\xfe", "taskset.toml"),
        (b"", "taskset.local"),
        (b"name = 'x'\npolicy = 'default'\n", "taskset.local"),
        (b"format = 2\nfuture = true\n", "taskset.format"),
        (b"format = 1\n", "taskset.toml"),
        (text.replace("[notice]", "[notise]").as_bytes(), "taskset.toml"),
        (text.replace("weight = 0.6", "weight = nan").as_bytes(), "taskset.field"),
        (text.replace("weight = 0.6", "weight = \"0.6\"").as_bytes(), "taskset.toml"),
        (format!("x = {}", "[".repeat(100_000)).as_bytes(), "taskset.toml"),
    ] {
        let refusal = Set::read(bytes).unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(!refusal.to_string().contains('\n') && refusal.to_string().len() < 400, "{refusal}");
    }
    let words = Set::read(text.replace("sequence = 1", "sequnce = 1").as_bytes()).unwrap_err().to_string();
    assert!(words.contains("line 6") && words.contains("sequnce"), "{words}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_changed_byte_is_the_same_meaning_no_set_or_another_signature(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let set = set();
        let signatures = signed(&set, &keys(1..3));
        let mut bytes = set.text().unwrap().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(read) = Set::read(&bytes) {
            let tally = signatures.tally(&read.digest(), &set.owner);
            if read == set {
                prop_assert_eq!(tally.unwrap().signers.len(), 2);
            } else {
                let other = matches!(tally, Err(Refusal::OtherBytes { .. }));
                prop_assert!(other);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Set::read(&bytes);
        let _ = nineteen_taskset::Signatures::read(&bytes);
    }

    #[test]
    fn a_changed_signature_counts_for_nothing(at in 0_usize..128, to in 0_u8..16) {
        let set = set();
        let mut signatures = signed(&set, &keys(1..2));
        let hex = &mut signatures.signatures[0].sr25519;
        let new = char::from_digit(to.into(), 16).unwrap();
        prop_assume!(hex.as_bytes()[at + 2] != new as u8);
        hex.replace_range(at + 2..at + 3, &new.to_string());
        let tally = signatures.tally(&set.digest(), &set.owner).unwrap();
        prop_assert_eq!((tally.signers.len(), tally.broken), (0, 1));
    }
}
