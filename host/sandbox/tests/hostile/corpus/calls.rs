//! What runs: budgets, start functions, allocation, host functions, resources, re-entrancy, rounds.

use super::{Case, Must};
use crate::common::Guest;

const SCORED: &str = "(call $scored (f64.const 0.5) (i64.const 3))";

/// A guest that begins with more WAT.
fn with(wat: &str, score: &str) -> Guest {
    Guest { wat: wat.into(), ..Guest::scoring(score) }
}

fn logging(write: &str) -> Guest {
    with(
        r#"(import "nineteen:task/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))"#,
        &format!("{write} {SCORED}"),
    )
}

fn reading(name: &str) -> Guest {
    with(
        &format!(
            r#"(import "nineteen:task/assets@0.1.0" "read" (func $read (param i32 i32 i32)))
               (data (i32.const 3000) "{name}")"#
        ),
        "(call $read (i32.const 3000) (i32.const 16) (i32.const 1536))
         (call $scored (f64.const 0.5) (i64.load8_u (i32.const 1536)))",
    )
}

fn allocating(realloc: &str) -> Guest {
    Guest { realloc: realloc.into(), ..Guest::default() }
}

fn after_return(body: &str) -> Guest {
    let wat = format!(
        r#"(import "nineteen:task/log@0.1.0" "write" (func $log (param i32 i32 i32 i32 i32)))
           (func (export "cabi_post_nineteen:task/task@0.1.0#score") (param i32) {body})"#
    );
    with(&wat, SCORED)
}

const CLOCK: &str = r#"(import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64) (result i32)))"#;

fn clocked(wat: &str, score: &str) -> Guest {
    Guest {
        wit_imports: "import wasi:clocks/monotonic-clock@0.2.6; import wasi:io/poll@0.2.6;",
        ..with(&format!("{CLOCK} {wat}"), score)
    }
}

pub(super) fn cases() -> Vec<Case> {
    use Must::{Fail, Refused, Score};
    vec![
        // Fuel, time, memory, stack.
        Case::score("a loop without end", "(loop $l (br $l)) (unreachable)", Fail("sandbox.fuel")),
        Case::score(
            "two functions that call each other without end",
            "(loop $l (drop (call $evidence (local.get 0))) (br $l)) (unreachable)",
            Fail("sandbox.fuel"),
        ),
        Case::score("a loop with fuel to burn", "(loop $l (br $l)) (unreachable)", Fail("sandbox.wall-time"))
            .within(|b| (b.fuel, b.wall_ms) = (20_000_000_000, 40)),
        Case::score(
            "bulk operations that cost little fuel",
            "(drop (memory.grow (i32.const 900)))
             (loop $l (memory.fill (i32.const 131072) (i32.const 7) (i32.const 50000000)) (br $l)) (unreachable)",
            Fail("sandbox.fuel"),
        ),
        Case::score(
            "memory, page by page",
            "(loop $l (drop (memory.grow (i32.const 1))) (br $l)) (unreachable)",
            Fail("sandbox.memory"),
        ),
        Case::score("all memory at once", "(drop (memory.grow (i32.const 65535))) (unreachable)", Fail("sandbox.memory")),
        Case::score(
            "more memory than there can be",
            &format!("(drop (memory.grow (i32.const -1))) {SCORED}"),
            Fail("sandbox.memory"),
        ),
        Case::guest("memory from the beginning", &Guest { pages: 2000, ..Guest::default() }, Refused("sandbox.memory")),
        Case::guest("four gigabytes from the beginning", &Guest { pages: 65536, ..Guest::default() }, Refused("sandbox.compile")),
        Case::score(
            "a recursion without end",
            "(i32.add (i32.const 1) (call $score (local.get 0)))",
            Fail("sandbox.stack"),
        ),
        Case::guest(
            "a recursion through a table",
            &with("(table 1 funcref) (elem (i32.const 0) $score) (type $t (func (param i32) (result i32)))",
                "(i32.add (i32.const 1) (call_indirect (type $t) (local.get 0) (i32.const 0)))"),
            Fail("sandbox.stack"),
        ),
        Case::guest(
            "a table that grows",
            &with("(table $t 1 funcref)",
                "(loop $l (br_if $l (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 10000)))))
                 (call $scored (f64.const 0.5) (i64.extend_i32_u (table.size $t)))"),
            Score,
        ),
        // Traps.
        Case::score("unreachable", "(unreachable)", Fail("sandbox.trap")),
        Case::score("a division by zero", "(i32.div_u (i32.const 1) (i32.const 0))", Fail("sandbox.trap")),
        Case::score("a load out of bounds", "(i32.load (i32.const -4))", Fail("sandbox.trap")),
        Case::score("a cast of NaN", "(i32.trunc_f64_s (f64.const nan))", Fail("sandbox.trap")),
        Case::guest(
            "a call of nothing",
            &with("(table 1 funcref) (type $t (func (param i32) (result i32)))",
                "(call_indirect (type $t) (local.get 0) (i32.const 0))"),
            Fail("sandbox.trap"),
        ),
        Case::guest(
            "a call of another type",
            &with("(table 1 funcref) (elem (i32.const 0) $scored) (type $t (func (param i32) (result i32)))",
                "(call_indirect (type $t) (local.get 0) (i32.const 0))"),
            Fail("sandbox.trap"),
        ),
        // Before the first call.
        Case::guest("a start that loops", &with("(func $s (loop $l (br $l))) (start $s)", SCORED), Refused("sandbox.fuel")),
        Case::guest("a start that traps", &with("(func $s unreachable) (start $s)", SCORED), Refused("sandbox.trap")),
        Case::guest(
            "a start that takes memory",
            &with("(func $s (loop $l (drop (memory.grow (i32.const 64))) (br $l))) (start $s)", SCORED),
            Refused("sandbox.memory"),
        ),
        Case::guest("a start that recurses", &with("(func $s (call $s) (call $s)) (start $s)", SCORED), Refused("sandbox.stack")),
        Case::guest("data outside of memory", &with(r#"(data (i32.const 131071) "xx")"#, SCORED), Refused("sandbox.trap")),
        Case::guest("elements outside of a table", &with("(table 1 funcref) (elem (i32.const 1) $scored)", SCORED), Refused("sandbox.trap")),
        // Allocation for arguments.
        Case::guest("arguments to outside of memory", &allocating("(i32.const 0x7ffffff8)"), Refused("sandbox.contract")),
        Case::guest("arguments to an odd address", &allocating("(i32.const 65537)"), Fail("sandbox.contract")),
        Case::guest("an allocation without end", &allocating("(loop $l (br $l)) (unreachable)"), Refused("sandbox.fuel")),
        Case::guest("an allocation that traps", &allocating("(unreachable)"), Refused("sandbox.trap")),
        Case::guest(
            "an allocation that takes memory",
            &allocating("(loop $l (drop (memory.grow (i32.const 64))) (br $l)) (unreachable)"),
            Refused("sandbox.memory"),
        ),
        Case::guest("all arguments at one address", &allocating("(i32.const 65536)"), Score),
        // After the call.
        Case::guest("a return without end", &after_return("(loop $l (br $l))"), Fail("sandbox.fuel")),
        Case::guest("a return that traps", &after_return("(unreachable)"), Fail("sandbox.trap")),
        Case::guest(
            "a call out of a return",
            &after_return("(call $log (i32.const 0) (i32.const 2048) (i32.const 1) (i32.const 0) (i32.const 0))"),
            Fail("sandbox.trap"),
        ),
        // Re-entrancy.
        Case::guest(
            "a call out of an allocation",
            &Guest {
                realloc: "(call $log (i32.const 0) (i32.const 2048) (i32.const 1) (i32.const 0) (i32.const 0)) (i32.const 65536)".into(),
                ..logging("")
            },
            Refused("sandbox.trap"),
        ),
        // Host functions.
        Case::guest("a log that is not UTF-8",
            &logging(r"(i32.store8 (i32.const 2048) (i32.const 0xff)) (call $log (i32.const 0) (i32.const 2048) (i32.const 4) (i32.const 0) (i32.const 0))"),
            Fail("sandbox.contract")),
        Case::guest("a log level that is none",
            &logging("(call $log (i32.const 9) (i32.const 2048) (i32.const 4) (i32.const 0) (i32.const 0))"),
            Fail("sandbox.contract")),
        Case::guest("a log from outside of memory",
            &logging("(call $log (i32.const 0) (i32.const -64) (i32.const 32) (i32.const 0) (i32.const 0))"),
            Fail("sandbox.contract")),
        Case::guest("a log of four gigabytes",
            &logging("(call $log (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 0))"),
            Fail("sandbox.contract")),
        Case::guest("a log with ten million fields",
            &logging("(drop (memory.grow (i32.const 900))) (call $log (i32.const 0) (i32.const 2048) (i32.const 4) (i32.const 131072) (i32.const 3000000))"),
            Fail("sandbox.bytes-out")),
        Case::guest("terminal escapes in a log",
            &logging(r"(i32.store (i32.const 2048) (i32.const 0x4a325b1b)) (call $log (i32.const 2) (i32.const 2048) (i32.const 4) (i32.const 0) (i32.const 0))"),
            Score),
        Case::guest("a log without end",
            &logging("(loop $l (call $log (i32.const 0) (i32.const 2048) (i32.const 4) (i32.const 0) (i32.const 0)) (br $l))"),
            Fail("sandbox.fuel")),
        Case::guest("an asset that is a path out", &reading("../../etc/passwd"), Score),
        Case::guest("an asset whose name is not UTF-8", &reading(r"\ff\fe\fd............."), Fail("sandbox.contract")),
        // Resources.
        Case::guest("resources that are never dropped",
            &clocked("", &format!("(loop $l (drop (call $sleep (i64.const 1))) (br $l)) {SCORED}")),
            Fail("sandbox.contract")),
        Case::guest("a resource that was dropped twice",
            &clocked(
                r#"(import "wasi:io/poll@0.2.6" "[resource-drop]pollable" (func $drop (param i32)))"#,
                &format!("(local $p i32) (local.set $p (call $sleep (i64.const 1))) (call $drop (local.get $p)) (call $drop (local.get $p)) {SCORED}"),
            ),
            Fail("sandbox.contract")),
        Case::guest("a resource that was never given",
            &clocked(
                r#"(import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))"#,
                &format!("(call $block (i32.const 77)) {SCORED}"),
            ),
            Fail("sandbox.contract")),
        Case::guest("resources that leak a little",
            &clocked("", &format!("(drop (call $sleep (i64.const 1))) (drop (call $sleep (i64.const -1))) {SCORED}")),
            Score),
        // Rounds.
        Case::score("rounds without end", "(call $need (call $evidence (local.get 0)))", Fail("sandbox.rounds")),
        Case::score("a check again and again", "(call $need (i32.const 0))", Fail("sandbox.contract")),
        Case::score(
            "a check of a model that was not granted",
            "(i32.store8 (i32.const 2120) (i32.const 122)) (call $need (i32.const 0))",
            Fail("sandbox.not-granted"),
        ),
        Case::score(
            "a check of a kind that was not granted",
            "(i32.store8 (i32.const 2100) (i32.const 122)) (call $need (i32.const 0))",
            Fail("sandbox.not-granted"),
        ),
        Case::score("more checks than allowed", "(call $need (call $evidence (local.get 0)))", Fail("sandbox.checks"))
            .within(|b| (b.rounds, b.checks) = (16, 2)),
    ]
}
