//! Files: damaged, deep, wide, of other proposals, components in components.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{Case, Must};
use crate::common::Guest;

const TASK: &str = r#"(instance $t) (export "nineteen:task/task@0.1.0" (instance $t))"#;

fn wat(text: &str) -> Bytes {
    wat::parse_str(text).unwrap_or_else(|e| panic!("{e}")).into()
}

/// A component with an empty task and this.
fn component(inside: &str) -> Bytes {
    wat(&format!("(component {inside} {TASK})"))
}

/// By hand: the parser of text does not go as deep.
fn nested(depth: usize) -> Bytes {
    let mut inner = raw(&[]);
    for _ in 0..depth {
        inner = raw(&section(4, &inner));
    }
    let whole = component("");
    [&whole[..8], &section(4, &inner), &whole[8..]].concat().into()
}

/// A section of a component.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    let mut left = content.len();
    while left > 0x7f {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend_from_slice(content);
    bytes
}

fn many(n: usize, one: impl Fn(usize) -> String) -> String {
    (0..n).fold(String::new(), |mut all, n| {
        let _ = writeln!(all, "{}", one(n));
        all
    })
}

/// A component's header and these bytes.
fn raw(bytes: &[u8]) -> Bytes {
    [b"\0asm\x0d\0\x01\0", bytes].concat().into()
}

fn with(wat: &str) -> Guest {
    Guest { wat: wat.into(), ..Guest::default() }
}

/// An instance that claims to be the task, all of whose functions are of another type.
fn mistyped() -> Bytes {
    let functions = ["describe", "synthesize", "admit", "count", "score"];
    let core = many(5, |n| format!(r#"(func (export "{}") (result i32) (i32.const 0))"#, functions[n]));
    let lifted =
        many(5, |n| format!(r#"(func $f{n} (result u32) (canon lift (core func $i "{}")))"#, functions[n]));
    let exports = many(5, |n| format!(r#"(export "{}" (func $f{n}))"#, functions[n]));
    wat(&format!(
        r#"(component (core module $m {core}) (core instance $i (instantiate $m)) {lifted}
           (instance $t {exports}) (export "nineteen:task/task@0.1.0" (instance $t)))"#
    ))
}

pub(super) fn cases() -> Vec<Case> {
    use Must::{Refused, Score};
    let case = Case::of;
    let (no_task, malformed, compile, link) = (
        Refused("sandbox.no-task"),
        Refused("sandbox.malformed"),
        Refused("sandbox.compile"),
        Refused("sandbox.link"),
    );
    let good = Guest::default().build();
    let twice = [&good[..], &good[..]].concat();
    let followed = [&good[..], b"and more"].concat();
    vec![
        // Not what it says.
        case("no bytes", Bytes::new(), Refused("sandbox.not-wasm")),
        case("a script", Bytes::from_static(b"#!/bin/sh\nexec rm -rf /\n"), Refused("sandbox.not-wasm")),
        case("four bytes of magic", Bytes::from_static(b"\0asm"), malformed),
        case("a version nobody knows", Bytes::from_static(b"\0asm\x63\0\x01\0"), malformed),
        case("a header alone", raw(&[]), no_task),
        case("a section of four gigabytes", raw(&[0, 0xff, 0xff, 0xff, 0xff, 0x0f]), malformed),
        case("a length without end", raw(&[1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80]), malformed),
        case("a section nobody knows", raw(&[0x7f, 0]), no_task),
        case("a count of four gigabytes", raw(&[11, 5, 0xff, 0xff, 0xff, 0xff, 0x0f]), malformed),
        case("a name longer than its file", raw(&[11, 4, 1, 0, 0x7f, b'a']), malformed),
        case("a name that is not UTF-8", raw(&[11, 8, 1, 0, 2, 0xff, 0xfe, 1, 0, 0]), malformed),
        case("itself twice", twice.into(), malformed),
        case("something after its end", followed.into(), malformed),
        case("a core module", wat(&Guest::default().core()), Refused("sandbox.core-module")),
        case("no component in it", wat("(component)"), no_task),
        // Deep and wide.
        case("a component in a component", component("(component)"), link),
        case("twenty components in each other", nested(20), link),
        case("a thousand components in each other", nested(1000), link),
        case(
            "ten thousand exports",
            component(&many(10_000, |n| format!(r#"(instance $e{n}) (export "x{n}" (instance $e{n}))"#))),
            compile,
        ),
        case(
            "ten thousand imports",
            component(&many(10_000, |n| format!(r#"(import "x{n}" (instance))"#))),
            Refused("sandbox.import"),
        ),
        case("ten thousand types", component(&many(10_000, |n| format!("(type $t{n} (list u8))"))), link),
        case(
            "types that double a hundred times",
            component(&format!(
                "(type $t0 u8) {}",
                many(100, |n| format!("(type $t{} (tuple $t{n} $t{n}))", n + 1))
            )),
            compile,
        ),
        case(
            "a type a hundred deep",
            component(&format!(
                "(type $t0 u8) {}",
                many(100, |n| format!("(type $t{} (list $t{n}))", n + 1))
            )),
            compile,
        ),
        case(
            "a record of ten thousand fields",
            component(&format!("(type (record {}))", many(10_000, |n| format!(r#"(field "f{n}" u8)"#)))),
            link,
        ),
        case("a task inside that is not exported", wat(&format!("(component (component {TASK}))")), no_task),
        case(
            "an import that is hidden inside",
            component(r#"(component (import "wasi:sockets/tcp@0.2.6" (instance)))"#),
            link,
        ),
        case("functions of another type", mistyped(), link),
        case(
            "a task that is a component, not an instance",
            wat(r#"(component (component $c) (export "nineteen:task/task@0.1.0" (component $c)))"#),
            compile,
        ),
        case(
            "more core instances than allowed",
            component(&format!(
                "(core module $m) {}",
                many(65, |_| "(core instance (instantiate $m))".into())
            )),
            compile,
        ),
        // Core modules that a component brings.
        Case::guest("a hundred memories", &with(&many(99, |_| "(memory 1)".into())), compile),
        Case::guest("a table of ten million", &with("(table 10000000 funcref)"), compile),
        Case::guest("a hundred tables", &with(&many(100, |_| "(table 1 funcref)".into())), compile),
        Case::guest(
            "ten thousand functions",
            &with(&many(10_000, |n| format!("(func (result i32) (i32.const {n}))"))),
            Score,
        ),
        Case::guest(
            "ten thousand locals",
            &with(&format!("(func {})", many(10_000, |_| "(local i64)".into()))),
            Score,
        ),
        Case::guest(
            "blocks a thousand deep",
            &with(&format!("(func {}{})", "(block ".repeat(1000), ")".repeat(1000))),
            Score,
        ),
        Case::guest(
            "ten thousand globals",
            &with(&many(10_000, |_| "(global i64 (i64.const 1))".into())),
            Score,
        ),
        Case::guest(
            "a branch table of ten thousand",
            &with(&format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(10_000))),
            Score,
        ),
        case("memory with 64-bit addresses", component("(core module (memory i64 1))"), compile),
        case("memory shared between threads", component("(core module (memory 1 1 shared))"), compile),
        case("garbage collection", component("(core module (type (struct (field i32))))"), compile),
        case("exceptions", component("(core module (tag) (func throw 0))"), compile),
        case("a tail call without end", component("(core module (func $f return_call $f))"), link),
        case(
            "a core module that does not type",
            component("(core module (func (result i32) i64.const 1))"),
            compile,
        ),
        case(
            "a core instance whose start loops",
            component("(core module $m (func $s (loop (br 0))) (start $s)) (core instance (instantiate $m))"),
            link,
        ),
        case(
            "a resource of its own",
            component("(type $r (resource (rep i32))) (core func $new (canon resource.new $r))"),
            link,
        ),
        case("a stream of the next version", wat_raw_stream(), compile),
    ]
}

/// Component-model async, which is not served.
fn wat_raw_stream() -> Bytes {
    component("(type (stream u8))")
}
