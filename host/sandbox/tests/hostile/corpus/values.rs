//! What crosses the boundary: discriminants, lists, text, numbers; and attempts to say something else each time.

use nineteen_sandbox::Call;

use super::{Case, Must};
use crate::common::{DESCRIPTION, Guest};

/// A verdict whose list at this offset is one element long and lies at 1280.
fn listing(offset: u32, element: &str) -> String {
    format!(
        "{element} (i32.store (i32.const {}) (i32.const 1280)) (i32.store (i32.const {}) (i32.const 1))
         (call $scored (f64.const 1) (i64.const 1))",
        1024 + offset,
        1028 + offset
    )
}

/// A fingerprint that claims to be so long.
fn fingerprint(bytes: u32) -> String {
    listing(
        40,
        &format!(
            "(i32.store (i32.const 1280) (i32.const 0)) (i32.store (i32.const 1284) (i32.const {bytes}))"
        ),
    )
}

/// A number under the name at 2048.
fn number(value: &str) -> String {
    format!(
        "(f64.store (i32.const 1288) (f64.const {value}))
         (i32.store (i32.const 1280) (i32.const 2048)) (i32.store (i32.const 1284) (i32.const 3))"
    )
}

fn quality(value: &str) -> String {
    format!("(call $scored (f64.const {value}) (i64.const 1))")
}

fn words(case: u32, at: &str, len: &str) -> String {
    format!(
        "(i32.store8 (i32.const 1024) (i32.const {case})) (i32.store (i32.const 1032) {at})
         (i32.store (i32.const 1036) {len}) (i32.const 1024)"
    )
}

fn synthesizing(more: &str) -> Guest {
    let default = Guest::default();
    let synthesize = default.synthesize.replace("(i32.const 1024)", &format!("{more} (i32.const 1024)"));
    Guest { synthesize, ..default }
}

fn admitting(admit: &str) -> Guest {
    Guest { admit: admit.into(), ..Guest::default() }
}

pub(super) fn cases() -> Vec<Case> {
    use Must::{Fail, Refused, Score};
    let contract = Fail("sandbox.contract");
    let mut cases = vec![
        Case::score("an outcome that is none", "(i32.store8 (i32.const 1024) (i32.const 9)) (i32.const 1024)", contract),
        Case::score("an outcome at an odd address", "(i32.const 1025)", contract),
        Case::score("an outcome outside of memory", "(i32.const 0x7ffffff8)", contract),
        Case::score("an outcome across the end of memory", "(i32.const 131064)", contract),
        Case::score("a need of nothing", "(i32.store8 (i32.const 1024) (i32.const 0)) (i32.const 1024)", contract),
        Case::score(
            "a check whose model is neither there nor not",
            "(drop (call $need (i32.const 0))) (i32.store8 (i32.const 1288) (i32.const 7)) (i32.const 1024)",
            contract,
        ),
        Case::score(
            "ten million checks",
            "(drop (memory.grow (i32.const 900))) (i32.store8 (i32.const 1024) (i32.const 0))
             (i32.store (i32.const 1032) (i32.const 131072)) (i32.store (i32.const 1036) (i32.const 1400000)) (i32.const 1024)",
            Fail("sandbox.bytes-out"),
        ),
        Case::score("a list of a gigabyte that is not there", &fingerprint(1 << 30), contract),
        Case::score(
            "a list of a gigabyte that is there",
            &format!("(drop (memory.grow (i32.const 16384))) {}", fingerprint(1 << 30)),
            Fail("sandbox.memory"),
        ),
        Case::score("a list of four gigabytes", &fingerprint(u32::MAX), contract),
        Case::score(
            "a result larger than its budget",
            &format!("(drop (memory.grow (i32.const 200))) {}", fingerprint(8 << 20)),
            Fail("sandbox.bytes-out"),
        ),
        Case::score(
            "seven million empty lists",
            "(drop (memory.grow (i32.const 900)))
             (i32.store (i32.const 1064) (i32.const 131072)) (i32.store (i32.const 1068) (i32.const 7000000))
             (call $scored (f64.const 1) (i64.const 1))",
            Fail("sandbox.bytes-out"),
        ),
        Case::score(
            "the same bytes shown a thousand times",
            "(local $i i32)
             (loop $l
               (i32.store (i32.add (i32.const 32768) (i32.shl (local.get $i) (i32.const 3))) (i32.const 0))
               (i32.store (i32.add (i32.const 32772) (i32.shl (local.get $i) (i32.const 3))) (i32.const 65536))
               (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))
             (i32.store (i32.const 1064) (i32.const 32768)) (i32.store (i32.const 1068) (i32.const 1000))
             (call $scored (f64.const 1) (i64.const 1))",
            Fail("sandbox.bytes-out"),
        ),
        Case::score("units for one chunk of two", &listing(24, ""), contract),
        // Text.
        Case::score(
            "a violation that is not UTF-8",
            &format!("(i32.store8 (i32.const 2048) (i32.const 0xff)) {}", words(2, "(i32.const 2048)", "(i32.const 4)")),
            contract,
        ),
        Case::score(
            "a violation with half a pair",
            &format!("(i32.store (i32.const 2048) (i32.const 0x80a0ed2f)) {}", words(2, "(i32.const 2048)", "(i32.const 4)")),
            contract,
        ),
        Case::score(
            "an overlong encoding",
            &format!("(i32.store (i32.const 2048) (i32.const 0x2f80c02f)) {}", words(3, "(i32.const 2048)", "(i32.const 4)")),
            contract,
        ),
        Case::score("words of four gigabytes", &words(2, "(i32.const 0)", "(i32.const -1)"), contract),
        Case::score(
            "a name that is not UTF-8",
            &listing(32, &format!("{} (i32.store8 (i32.const 2049) (i32.const 0xc0))", number("1"))),
            contract,
        ),
        Case::guest(
            "a description that is not UTF-8",
            &Guest { describe: "(i32.store8 (i32.const 4100) (i32.const 0xff)) (call $text (i32.const 0) (i32.const 4096) (global.get $said))".into(), ..Guest::default() },
            Refused("sandbox.contract"),
        ),
        Case::guest(
            "a description that is a heap of brackets",
            &Guest { description: "[".repeat(20_000), ..Guest::default() },
            Refused("sandbox.description"),
        ),
        Case::guest(
            "a description that is neither",
            &Guest { describe: "(call $text (i32.const 5) (i32.const 4096) (global.get $said))".into(), ..Guest::default() },
            Refused("sandbox.contract"),
        ),
        Case::guest(
            "a description with a number for a name",
            &Guest { description: DESCRIPTION.replace("\"echo\",\"version\"", "1e999,\"version\""), ..Guest::default() },
            Refused("sandbox.description"),
        ),
        // Requests and refusals.
        Case::guest("a header smuggled in a content type", &synthesizing("(i32.store8 (i32.const 2066) (i32.const 10))"), contract).at(Call::Synthesize),
        Case::guest("a request to another path", &synthesizing("(i32.store8 (i32.const 2050) (i32.const 97))"), contract).at(Call::Synthesize),
        Case::guest("a request to another host", &synthesizing("(i32.store (i32.const 2048) (i32.const 0x2f2f2f2f))"), contract).at(Call::Synthesize),
        Case::guest("work that is none", &synthesizing("(i64.store (i32.const 1064) (i64.const 0))"), contract).at(Call::Synthesize),
        Case::guest("a body that is not there", &synthesizing("(i32.store (i32.const 1052) (i32.const 0x40000000))"), contract).at(Call::Synthesize),
        Case::guest("a bool of seven", &synthesizing("(i32.store8 (i32.const 1056) (i32.const 7))"), Score).at(Call::Synthesize),
        Case::guest("a synthesis that is neither", &synthesizing("(i32.store8 (i32.const 1024) (i32.const 2))"), contract).at(Call::Synthesize),
        Case::guest("an admission that is none", &admitting("(i32.store8 (i32.const 1024) (i32.const 9)) (i32.const 1024)"), contract).at(Call::Admit),
        Case::guest(
            "a refusal that says all is well",
            &admitting("(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store16 (i32.const 1028) (i32.const 200)) (i32.const 1024)"),
            contract,
        )
        .at(Call::Admit),
        Case::guest(
            "a count that is neither there nor not",
            &Guest { count: "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.const 1024)".into(), ..Guest::default() },
            contract,
        ),
        // To say something else each time.
        Case::score(
            "the bits of a NaN",
            "(call $scored (f64.const 0.5) (i64.reinterpret_f64 (f64.div (f64.const 0) (f64.const -0))))",
            Score,
        ),
        Case::score(
            "the bits of a NaN that was carried on",
            "(call $scored (f64.const 0.5) (i64.reinterpret_f64 (f64.mul (f64.const -nan:0x4000000000001) (f64.sqrt (f64.const -1)))))",
            Score,
        ),
        Case::score(
            "what the last call left in memory",
            "(i64.store (i32.const 9000) (i64.add (i64.const 1) (i64.load (i32.const 9000)))) (call $scored (f64.const 0.5) (i64.load (i32.const 9000)))",
            Score,
        ),
        Case::score(
            "how large memory is",
            "(call $scored (f64.const 0.5) (i64.extend_i32_u (i32.add (memory.grow (i32.const 3)) (memory.size))))",
            Score,
        ),
        Case::guest(
            "what a clock and a die say",
            &Guest {
                wit_imports: "import wasi:random/random@0.2.6; import wasi:clocks/monotonic-clock@0.2.6;",
                wat: r#"(import "wasi:random/random@0.2.6" "get-random-u64" (func $roll (result i64)))
                        (import "wasi:clocks/monotonic-clock@0.2.6" "now" (func $now (result i64)))"#
                    .into(),
                ..Guest::scoring("(call $scored (f64.const 0.5) (i64.xor (call $roll) (call $now)))")
            },
            Score,
        ),
        Case::score(
            "what lies in memory that nobody wrote",
            "(local $i i32) (local $sum i64) (drop (memory.grow (i32.const 8)))
             (loop $l
               (local.set $sum (i64.add (local.get $sum) (i64.load (i32.add (i32.const 70000) (local.get $i)))))
               (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 500000))))
             (call $scored (f64.const 0.5) (local.get $sum))",
            Score,
        ),
        Case::score("units without measure", "(call $scored (f64.const 1) (i64.const -1))", Score),
        Case::score("a zero with a sign", &quality("-0"), Score),
    ];
    for (name, value) in [
        ("a quality that is no number", "nan"),
        ("a quality of NaN with a payload", "nan:0x7ff"),
        ("a quality without end", "inf"),
        ("a quality without beginning", "-inf"),
        ("a quality a little above one", "1.0000000000000002"),
        ("a quality a little below zero", "-4.9e-324"),
    ] {
        cases.push(Case::score(name, &quality(value), contract));
    }
    for (name, offset, value) in [
        ("a suspicion without end", 32, "inf"),
        ("a suspicion that is no number", 32, "nan"),
        ("a reason without beginning", 48, "-inf"),
        ("a reason that is no number", 48, "nan"),
    ] {
        cases.push(Case::score(name, &listing(offset, &number(value)), contract));
    }
    cases
}
