//! What a miner can answer when it is asked for its capacity, and what that costs: its own capacity for the
//! period, and nobody else's anything.
//!
//! One table of replies as raw bytes on real sockets. Beside each row, at the same time and with the same
//! client, an honest miner is asked; what was read of both then goes the way that planning sends it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{client, serve};
use nineteen_domain::ledger::{Failure, ProbeClass};
use nineteen_mechanism::clamp_capacity;
use nineteen_wire::{AnnounceFault, Announcement, CapacityFault, Client, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

const PERIOD_S: u64 = 60;
/// Units per period that planning allows each task.
const CAP: u64 = 60_000;
/// The task that a row spoils, between two that it must not.
const TASKS: [&str; 3] = ["before", "victim", "after"];
const GIB: usize = 1 << 30;
/// What a server may get rid of before the client is gone: the client's limits, and what loopback buffers.
const PUSHED_BYTES: u64 = 1 << 20;
/// A reply that is wrong at once is over at once: far below the five seconds of `ANNOUNCEMENT_LIMITS`.
const AT_ONCE_MS: u64 = 2_000;
/// A deadline's slack on a busy machine.
const SLACK_MS: u64 = 2_500;
/// Rows at once. Those that wait for a deadline take no seat.
const SEATS: usize = 8;
/// What this whole process may ever hold, server side and tables included.
const PEAK_KIB: u64 = 64 << 10;

// ---- what a server does --------------------------------------------------------------------------------

enum Step {
    Say(Vec<u8>),
    /// The same bytes again and again, with a pause of so many milliseconds after each.
    Repeat(Vec<u8>, usize, u64),
}

#[derive(Clone, Copy)]
enum Last {
    Close,
    /// Keeps the connection until the client ends it.
    Hang,
    /// Breaks it off with a reset.
    Reset,
}

#[derive(Clone, Copy, Debug)]
enum Want {
    /// The victim's capacity, and what planning makes of it. Its neighbours are whole.
    Reads(f64, u64),
    /// The victim has none. Its neighbours are whole.
    Spoilt(CapacityFault),
    /// None of the three is announced, and nothing is wrong.
    Nothing,
    /// There is no announcement, by this stable code.
    Whole(&'static str),
    /// As `Whole("wire.announce.transport")`, and the transport's word for it.
    Transport(ProbeClass),
}
use Want::{Nothing, Reads, Spoilt, Whole};

const FORMAT: Want = Whole("wire.announce.format");
const TOO_LONG: Want = Whole("wire.announce.too-long");
const TOO_SLOW: Want = Whole("wire.announce.too-slow");
const REFUSED: Want = Want::Transport(ProbeClass::Failed(Failure::Refused));
const BROKEN: Want = Want::Transport(ProbeClass::Failed(Failure::Disconnected));
const STATUS: Want = Want::Transport(ProbeClass::Failed(Failure::Status));
const FINE: Want = Reads(9.0, 9);

struct Row {
    name: String,
    steps: Vec<Step>,
    last: Last,
    want: Want,
    within_ms: u64,
}

impl Row {
    fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
    fn hang(mut self) -> Self {
        self.last = Last::Hang;
        self
    }
    fn reset(mut self) -> Self {
        self.last = Last::Reset;
        self
    }
    /// Ends at a deadline of the client's: that, and slack for a busy machine.
    fn at_deadline(mut self, ms: u64) -> Self {
        self.within_ms = ms + SLACK_MS;
        self
    }
}

fn row(name: impl Into<String>, bytes: impl Into<Vec<u8>>, want: Want) -> Row {
    let steps = vec![Step::Say(bytes.into())];
    Row { name: name.into(), steps, last: Last::Close, want, within_ms: AT_ONCE_MS }
}

fn body(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The good body, and what the rows of framing wrap.
fn good() -> String {
    whole(&three("9"))
}

fn whole(capacities: &str) -> String {
    format!(r#"{{"protocol":"nineteen/1","period_s":{PERIOD_S},"capacities":{capacities}}}"#)
}

fn three(victim: &str) -> String {
    format!(r#"{{"before":7,"victim":{victim},"after":25000.5}}"#)
}

/// Three capacities with more members at the end.
fn three_and(more: &str) -> String {
    whole(&format!(r#"{{"before":7,"victim":9,"after":25000.5{more}}}"#))
}

/// 200, these header lines and no others, these bytes.
fn raw(headers: &str, rest: impl AsRef<[u8]>) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", headers.as_bytes(), b"\r\n", rest.as_ref()].concat()
}

fn status(line: &str) -> Vec<u8> {
    let body = good();
    format!("HTTP/1.1 {line}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

// ---- the table -----------------------------------------------------------------------------------------

/// One value that is not what it should be.
fn values() -> Vec<Row> {
    let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let table: Vec<(&str, String, Want)> = vec![
        ("NaN", "NaN".into(), FORMAT),
        ("Infinity", "Infinity".into(), FORMAT),
        ("-Infinity", "-Infinity".into(), FORMAT),
        ("inf, which Rust would parse", "inf".into(), FORMAT),
        ("1e308", "1e308".into(), Reads(1e308, CAP)),
        ("1e309", "1e309".into(), Spoilt(CapacityFault::NotFinite)),
        ("-1e309", "-1e309".into(), Spoilt(CapacityFault::NotFinite)),
        ("an exponent beyond counting", format!("1e{}", "9".repeat(400)), Spoilt(CapacityFault::NotFinite)),
        ("an exponent below counting", format!("1e-{}", "9".repeat(400)), Reads(0.0, 0)),
        ("-0", "-0".into(), Reads(0.0, 0)),
        ("-0.0", "-0.0".into(), Reads(0.0, 0)),
        ("negative, but rounds to zero", "-1e-400".into(), Reads(0.0, 0)),
        ("-1", "-1".into(), Spoilt(CapacityFault::Negative)),
        ("-1e-300", "-1e-300".into(), Spoilt(CapacityFault::Negative)),
        ("null", "null".into(), Spoilt(CapacityFault::NotANumber)),
        ("true", "true".into(), Spoilt(CapacityFault::NotANumber)),
        ("a number in a string", "\"7\"".into(), Spoilt(CapacityFault::NotANumber)),
        ("a string", "\"much\"".into(), Spoilt(CapacityFault::NotANumber)),
        ("a string of half a surrogate pair", r#""\ud800""#.into(), Spoilt(CapacityFault::NotANumber)),
        ("an array", "[1]".into(), Spoilt(CapacityFault::NotANumber)),
        ("an object", r#"{"victim":1}"#.into(), Spoilt(CapacityFault::NotANumber)),
        ("an empty object", "{}".into(), Spoilt(CapacityFault::NotANumber)),
        ("arrays 30,000 deep", nested("[", "]", 30_000), Spoilt(CapacityFault::NotANumber)),
        ("objects 10,000 deep", nested("{\"\":", "}", 10_000), Spoilt(CapacityFault::NotANumber)),
        ("arrays 100,000 deep", nested("[", "]", 100_000), TOO_LONG),
        ("objects 100,000 deep", nested("{\"\":", "}", 100_000), TOO_LONG),
        ("arrays that never close", "[".repeat(60_000), FORMAT),
        ("a fraction", "59999.999".into(), Reads(59_999.999, 59_999)),
        ("a tiny fraction", "1e-300".into(), Reads(1e-300, 0)),
        ("2^53 + 1", "9007199254740993".into(), Reads(9_007_199_254_740_992.0, CAP)),
        ("2^64", "18446744073709551616".into(), Reads(18_446_744_073_709_551_616.0, CAP)),
        ("30 digits", "9".repeat(30), Reads(1e30, CAP)),
        ("50,000 digits", "9".repeat(50_000), Spoilt(CapacityFault::NotFinite)),
        ("50,000 decimals", format!("8.{}", "0".repeat(50_000)), Reads(8.0, 8)),
        ("100,000 digits", "9".repeat(100_000), TOO_LONG),
        ("hexadecimal", "0x10".into(), FORMAT),
        ("a leading zero", "010".into(), FORMAT),
        ("a plus sign", "+1".into(), FORMAT),
        ("an exponent without digits", "1e".into(), FORMAT),
        ("no value", String::new(), FORMAT),
    ];
    table.into_iter().map(|(name, v, want)| row(name, body(whole(&three(&v))), want)).collect()
}

/// A body that is not the announcement it should be.
fn bodies() -> Vec<Row> {
    let utf16: Vec<u8> = good().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let unknown = |n: usize| (0..n).map(|i| format!(",\"task-{i}\":1")).collect::<String>();
    let named = |name: &str| three_and(&format!(",\"{name}\":5"));
    let twice = r#"{"before":7,"victim":1,"victim":1,"after":25000.5}"#;
    let escaped_twice = r#"{"before":7,"victim":1,"after":25000.5,"v\u0069ctim":2}"#;
    let thrice = r#"{"victim":1,"before":7,"victim":null,"after":25000.5,"victim":1}"#;
    let table: Vec<(&str, Vec<u8>, Want)> = vec![
        ("an empty body", vec![], FORMAT),
        ("whitespace", b" \r\n\t ".into(), FORMAT),
        ("60 KiB of whitespace around", format!("{}{}", " ".repeat(60 << 10), good()).into(), FINE),
        ("no JSON", "hello".into(), FORMAT),
        ("JSON cut short", good()[..good().len() - 1].into(), FORMAT),
        ("something after the JSON", format!("{} x", good()).into(), FORMAT),
        ("two announcements in one", good().repeat(2).into(), FORMAT),
        ("an empty object", "{}".into(), FORMAT),
        ("an array", format!("[{}]", good()).into(), FORMAT),
        ("null", "null".into(), FORMAT),
        ("a NUL after the JSON", format!("{}\0", good()).into(), FORMAT),
        ("a comment", format!("/* */{}", good()).into(), FORMAT),
        ("a byte order mark", format!("\u{feff}{}", good()).into(), FORMAT),
        ("UTF-16", utf16.clone(), FORMAT),
        ("UTF-16 with its mark", [vec![0xff, 0xfe], utf16].concat(), FORMAT),
        (
            "a name that is no UTF-8",
            b"{\"protocol\":\"nineteen/1\",\"period_s\":60,\"capacities\":{\"\xff\":1}}".to_vec(),
            FORMAT,
        ),
        (
            "a value that is no UTF-8",
            b"{\"protocol\":\"nineteen/1\",\"period_s\":60,\"capacities\":{\"a\":\"\xc3\x28\"}}".to_vec(),
            FORMAT,
        ),
        ("a task twice", whole(twice).into(), Spoilt(CapacityFault::Duplicate)),
        ("a task twice, once escaped", whole(escaped_twice).into(), Spoilt(CapacityFault::Duplicate)),
        ("a task three times", whole(thrice).into(), Spoilt(CapacityFault::Duplicate)),
        (
            "the task by another case",
            whole(r#"{"before":7,"Victim":9,"after":25000.5}"#).into(),
            Spoilt(CapacityFault::Missing),
        ),
        (
            "the task with a NUL behind it",
            whole(r#"{"before":7,"victim\u0000":9,"after":25000.5}"#).into(),
            Spoilt(CapacityFault::Missing),
        ),
        ("a surplus name with escapes", named(r"\u0000\u001b[2J\n\u202e../../etc").into(), FINE),
        ("a surplus name with half a surrogate pair", named(r"\ud800").into(), FINE),
        ("a surplus name with the wrong half first", named(r"\udc00\ud800").into(), FINE),
        ("a surplus name with an escape that is none", named(r"\x41").into(), FORMAT),
        ("a surplus name with a bare NUL", named("\0").into(), FORMAT),
        ("an empty surplus name", named("").into(), FINE),
        ("a surplus name of 60,000 bytes", named(&"n".repeat(60_000)).into(), FINE),
        ("a surplus name of 1 MB", named(&"n".repeat(1_000_000)).into(), TOO_LONG),
        ("253 unknown tasks", three_and(&unknown(253)).into(), FINE),
        ("254 unknown tasks, one too many", three_and(&unknown(254)).into(), TOO_LONG),
        ("4,000 unknown tasks within 64 KiB", three_and(&unknown(4_000)).into(), TOO_LONG),
        ("10,000 unknown tasks", three_and(&unknown(10_000)).into(), TOO_LONG),
        ("no `capacities`", r#"{"protocol":"nineteen/1","period_s":60}"#.into(), FORMAT),
        ("empty `capacities`", whole("{}").into(), Nothing),
        ("`capacities` as a list", whole("[7,9,25000.5]").into(), FORMAT),
        ("`capacities` as pairs", whole(r#"[["victim",9]]"#).into(), FORMAT),
        ("`capacities` null", whole("null").into(), FORMAT),
        ("`capacities` as a string", whole(r#""{}""#).into(), FORMAT),
        ("`capacities` as lines of our log", whole(r#""\u001b[2J\r\nERROR""#).into(), FORMAT),
        ("`capacities` twice", good().replace("{\"protocol", "{\"capacities\":{},\"protocol").into(), FORMAT),
        (
            "surplus fields",
            good().replace("{\"protocol", "{\"x\":[{}],\"y\":\"\\ud800\",\"protocol").into(),
            FINE,
        ),
        ("no `protocol`", r#"{"period_s":60,"capacities":{}}"#.into(), FORMAT),
        ("`protocol` null", good().replace("\"nineteen/1\"", "null").into(), FORMAT),
        (
            "another `protocol`",
            good().replace("nineteen/1", "nineteen/2").into(),
            Whole("wire.announce.protocol"),
        ),
        (
            "a `protocol` that paints the operator's terminal",
            good().replace("nineteen/1", r"\u001b[2J\u001b[31m\r\nERROR").into(),
            Whole("wire.announce.protocol"),
        ),
        ("no `period_s`", r#"{"protocol":"nineteen/1","capacities":{}}"#.into(), FORMAT),
        ("another `period_s`", good().replace(":60,", ":3600,").into(), Whole("wire.announce.period")),
        ("`period_s` in a string", good().replace(":60,", ":\"60\",").into(), Whole("wire.announce.period")),
        ("`period_s` infinite", good().replace(":60,", ":1e999,").into(), Whole("wire.announce.period")),
    ];
    table.into_iter().map(|(name, bytes, want)| row(name, body(bytes), want)).collect()
}

/// A reply that is slow, endless or broken off.
fn manners() -> Vec<Row> {
    let head = "HTTP/1.1 200 OK\r\n";
    let length = |n: &str| raw(&format!("content-length: {n}\r\n"), good());
    let exact = good().len();
    let gib = |block: Vec<u8>| {
        let times = GIB / block.len() + 1;
        Step::Repeat(block, times, 0)
    };
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let chunked = "transfer-encoding: chunked\r\n";
    let bytewise: String =
        good().chars().map(|c| format!("1\r\n{c}\r\n")).chain(["0\r\n\r\n".into()]).collect();
    let hundred = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    let early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
    let drip = || Step::Repeat(b" ".into(), 60, 1_000);
    vec![
        row("1 GiB with its length", raw(&format!("content-length: {GIB}\r\n"), ""), TOO_LONG)
            .then(gib(vec![b' '; 1 << 16])),
        row("1 GiB in chunks without end", raw(chunked, ""), TOO_LONG).then(gib(chunk)),
        row("1 GiB until close", raw("", ""), TOO_LONG).then(gib(vec![b' '; 1 << 16])),
        row("1 GiB in one chunk", raw(chunked, "40000000\r\n"), TOO_LONG).then(gib(vec![b' '; 1 << 16])),
        row("1 GiB of one header", format!("{head}x: "), TOO_LONG).then(gib(vec![b'y'; 1 << 16])),
        row("1 GiB of status line", "HTTP/1.1 200 ", TOO_LONG).then(gib(vec![b'y'; 1 << 16])),
        row("1 GiB of a 404", "HTTP/1.1 404 N\r\n\r\n", TOO_LONG).then(gib(vec![b'y'; 1 << 16])),
        row("1 GiB of 100 Continue", "", TOO_LONG).then(gib(hundred.repeat(2_000))),
        row("1 GiB of 103 Early Hints", "", TOO_LONG).then(gib(early.repeat(2_000))),
        row("1 GiB of chunk extension", raw(chunked, "1;x="), BROKEN).then(gib(vec![b'y'; 1 << 16])),
        row("1 GiB of trailers", raw(chunked, "0\r\nx: "), BROKEN).then(gib(vec![b'y'; 1 << 16])),
        row("headers of 1 MiB", raw(&format!("x: {}\r\n", "y".repeat(1 << 20)), good()), TOO_LONG),
        row("20,000 headers", raw(&"x: y\r\n".repeat(20_000), good()), TOO_LONG),
        row("101 headers", raw(&"x: y\r\n".repeat(101), good()), TOO_LONG),
        row("one byte a second", raw("", ""), TOO_SLOW).then(drip()).at_deadline(5_000),
        row("a header of one byte a second", format!("{head}x: "), TOO_SLOW).then(drip()).at_deadline(3_000),
        row("100 Continue five times a second", "", TOO_SLOW)
            .then(Step::Repeat(hundred, 300, 200))
            .at_deadline(3_000),
        row("a byte a chunk", raw(chunked, bytewise), FINE),
        row("a piece each millisecond", raw("", ""), TOO_LONG)
            .then(Step::Repeat(b" ".into(), 20_000, 1))
            .at_deadline(2_000),
        row("silence", "", TOO_SLOW).hang().at_deadline(3_000),
        row("stalls within the headers", format!("{head}content-le"), TOO_SLOW).hang().at_deadline(3_000),
        row("stalls after the headers", raw("content-length: 9\r\n", ""), TOO_SLOW).hang().at_deadline(3_000),
        row("stalls within the body", raw("content-length: 9\r\n", "{"), TOO_SLOW).hang().at_deadline(2_000),
        row("a good body that never ends", raw("", good()), TOO_SLOW).hang().at_deadline(2_000),
        row("closes at once", "", BROKEN),
        row("closes within the headers", format!("{head}content-le"), BROKEN),
        row("closes within the body", raw("content-length: 500\r\n", "{\"protocol\":"), BROKEN),
        row("resets within the body", raw("content-length: 500\r\n", "{\"protocol\":"), BROKEN).reset(),
        row("a length beyond the body", length(&(exact + 1).to_string()), BROKEN),
        row("a length beyond the body, held", length(&(exact + 1).to_string()), TOO_SLOW)
            .hang()
            .at_deadline(2_000),
        row("a length below the body", length(&(exact - 1).to_string()), FORMAT),
        row("a length of 0", length("0"), FORMAT),
        row(
            "a good reply with more behind it",
            [length(&exact.to_string()), status("200 OK")].concat(),
            FINE,
        ),
        row("two lengths", length(&format!("{exact}\r\ncontent-length: 5")), REFUSED),
        row("a negative length", length("-1"), REFUSED),
        row("a length that is no number", length("many"), REFUSED),
        row("a length above 2^64", length("18446744073709551617"), REFUSED),
        row("a length of 2^64 - 1", length("18446744073709551615"), TOO_LONG),
        row("a huge chunk, then nothing", raw(chunked, format!("7fffffffffffffff\r\n{}", good())), BROKEN),
        row("a chunk size above 2^64", raw(chunked, format!("{}\r\n{}", "f".repeat(17), good())), BROKEN),
        row("a chunk size that is no number", raw(chunked, format!("zz\r\n{}\r\n0\r\n\r\n", good())), BROKEN),
        row("a negative chunk size", raw(chunked, format!("-1\r\n{}\r\n0\r\n\r\n", good())), BROKEN),
        row("chunks without the last", raw(chunked, format!("{exact:x}\r\n{}\r\n", good())), BROKEN),
    ]
}

/// A reply that is no plain 200.
fn protocols(trap: SocketAddr) -> Vec<Row> {
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff];
    let mut rows = vec![
        row("another content type", raw("content-type: text/html\r\n", good()), FINE),
        row("a content type that is none", raw("content-type: \x01\u{fc}\r\n", good()), REFUSED),
        row("gzip", raw("content-encoding: gzip\r\n", gzip), REFUSED),
        row("gzip in transfer", raw("transfer-encoding: gzip, chunked\r\n", gzip), REFUSED),
        row("204", "HTTP/1.1 204 No Content\r\n\r\n", STATUS),
        row("206 with a good body", status("206 Partial Content"), STATUS),
        row("304", "HTTP/1.1 304 Not Modified\r\n\r\n", STATUS),
        row("404 with a good body", status("404 Not Found"), STATUS),
        row("429 with a good body", status("429 Too Many"), Want::Transport(ProbeClass::RateLimited)),
        row("500 with a good body", status("500 Oops"), STATUS),
        row("999 with a good body", status("999 X"), STATUS),
        row(
            "101, and then another protocol",
            "HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            STATUS,
        ),
        row("a header without a colon", raw("nonsense\r\n", good()), REFUSED),
        row("a header with a NUL", raw("x: \0\r\n", good()), REFUSED),
        row("a status that is no number", "HTTP/1.1 two OK\r\n\r\n{}", REFUSED),
        row("HTTP/0.9", good(), REFUSED),
        row("HTTP/9.9", format!("HTTP/9.9 200 OK\r\n\r\n{}", good()), REFUSED),
        row("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", REFUSED),
        row("settings of HTTP/2", [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100], REFUSED),
        row("a ClientHello", [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x5a, 0xff, 0, 13, 10], REFUSED),
        row("ssh", "SSH-2.0-OpenSSH_9.6\r\n", REFUSED),
        row("NULs", [0; 4_096], REFUSED),
        row("noise", (0..=255).rev().cycle().take(4_096).collect::<Vec<u8>>(), REFUSED),
    ];
    for code in [301, 302, 303, 307, 308] {
        let reply = format!(
            "HTTP/1.1 {code} Elsewhere\r\nlocation: http://{trap}/nineteen/v1/capacity?period_s=60\r\n\
             content-length: 0\r\n\r\n"
        );
        rows.push(row(format!("a redirect {code}"), reply, STATUS));
    }
    rows
}

// ---- the run -------------------------------------------------------------------------------------------

/// What a row's server saw.
#[derive(Default)]
struct Seen {
    connections: AtomicU32,
    pushed: AtomicU64,
    over: Notify,
}

async fn say(stream: &mut TcpStream, mut bytes: &[u8], seen: &Seen) -> bool {
    while !bytes.is_empty() {
        let Ok(n) = stream.write(bytes).await else { return false };
        seen.pushed.fetch_add(n as u64, Relaxed);
        bytes = &bytes[n..];
    }
    true
}

async fn act(stream: &mut TcpStream, row: &Row, seen: &Seen) {
    for step in &row.steps {
        let (bytes, times, pause_ms) = match step {
            Step::Say(bytes) => (bytes, 1, 0),
            Step::Repeat(bytes, times, pause_ms) => (bytes, *times, *pause_ms),
        };
        for _ in 0..times {
            if !say(stream, bytes, seen).await {
                return;
            }
            if pause_ms > 0 {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
    }
    match row.last {
        Last::Close => {}
        Last::Hang => while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {},
        Last::Reset => {
            // What was said arrives first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.set_zero_linger().unwrap();
        }
    }
}

/// Capacities of the three tasks as planning takes them: what is no capacity is 0.
fn planned(got: &Result<Announcement, AnnounceFault>) -> [u64; 3] {
    TASKS.map(|task| {
        let announced = got.as_ref().ok().and_then(|a| a.of(task).ok());
        announced.map_or(0, |n| clamp_capacity(n, CAP).expect("what the wire calls a capacity is one"))
    })
}

fn verdict(want: Want, got: &Result<Announcement, AnnounceFault>) -> Result<(), String> {
    let bits = |x: Result<f64, CapacityFault>| x.map(f64::to_bits);
    let (victim, units) = match (want, got) {
        (Want::Transport(class), Err(AnnounceFault::Transport(c))) if *c == class => return nothing(got),
        (Whole(code), Err(e)) if e.code() == code => return nothing(got),
        (Nothing, Ok(a)) if TASKS.iter().all(|t| a.of(t) == Err(CapacityFault::Missing)) => {
            return nothing(got);
        }
        (Reads(n, units), Ok(_)) => (Ok(n), units),
        (Spoilt(fault), Ok(_)) => (Err(fault), 0),
        _ => return Err(format!("got {}", short(got))),
    };
    let a = got.as_ref().unwrap();
    // By bits: -0 is not 0 to whoever divides by it.
    let is = TASKS.map(|t| bits(a.of(t)));
    if is != [bits(Ok(7.0)), bits(victim), bits(Ok(25_000.5))] {
        return Err(format!("read {}", short(got)));
    }
    match planned(got) {
        p if p == [7, units, 25_000] => Ok(()),
        p => Err(format!("planned {p:?}")),
    }
}

fn nothing(got: &Result<Announcement, AnnounceFault>) -> Result<(), String> {
    match planned(got) {
        [0, 0, 0] => Ok(()),
        p => Err(format!("planned {p:?}")),
    }
}

fn short(x: &impl std::fmt::Debug) -> String {
    format!("{x:?}").chars().take(300).collect()
}

/// Asks the row's miner and, at the same time, an honest one. All that is wrong about it.
async fn against(client: Client, honest: Target, row: Row) -> Vec<String> {
    let (row, seen) = (Arc::new(row), Arc::new(Seen::default()));
    let mut tasks = JoinSet::new();
    let target = serve(&mut tasks, {
        let (row, seen) = (Arc::clone(&row), Arc::clone(&seen));
        move |mut stream, request| {
            let (row, seen) = (Arc::clone(&row), Arc::clone(&seen));
            async move {
                assert!(request.starts_with(b"GET /nineteen/v1/capacity?period_s=60 HTTP/1.1\r\n"));
                seen.connections.fetch_add(1, Relaxed);
                act(&mut stream, &row, &seen).await;
                drop(stream);
                seen.over.notify_one();
            }
        }
    })
    .await;
    let timed = async |target: Target| {
        let started = Instant::now();
        (client.capacity(&target, PERIOD_S).await, started.elapsed())
    };
    let ((got, took), (beside, beside_took)) = tokio::join!(timed(target), timed(honest));

    let mut wrong = Vec::new();
    let mut check = |good: bool, what: String| {
        if !good {
            wrong.push(format!("{}: {what} (wanted {:?})", row.name, row.want));
        }
    };
    if let Err(why) = verdict(row.want, &got) {
        check(false, why);
    }
    if let Err(fault) = &got {
        // Faults are logged: what a miner says must not become lines or colours of our log.
        let said = fault.to_string();
        check(!said.contains(char::is_control) && said.len() < 500, format!("logged as {said:?}"));
    }
    check(took <= Duration::from_millis(row.within_ms), format!("took {took:?}"));
    check(verdict(FINE, &beside).is_ok(), format!("the honest one's was {}", short(&beside)));
    check(beside_took <= Duration::from_millis(AT_ONCE_MS), format!("the honest one took {beside_took:?}"));
    // The client is done, so its socket is gone, and the server finds out when it next touches it.
    let gone = tokio::time::timeout(Duration::from_millis(2_500), seen.over.notified()).await;
    check(gone.is_ok(), "the connection is still open".into());
    let pushed = seen.pushed.load(Relaxed);
    check(pushed <= PUSHED_BYTES, format!("took {pushed} bytes"));
    let connections = seen.connections.load(Relaxed);
    check(connections == 1, format!("{connections} connections"));
    wrong
}

/// The most memory that this process ever held, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_miner_announces_costs_that_miner_alone() {
    let mut tasks = JoinSet::new();
    let honest = serve(&mut tasks, |mut stream, _| async move {
        stream.write_all(&body(good())).await.unwrap();
    })
    .await;
    // Where redirects lead. It takes every connection and says nothing.
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap_addr = trap.local_addr().unwrap();
    let trapped = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&trapped);
    tasks.spawn(async move {
        while trap.accept().await.is_ok() {
            count.fetch_add(1, Relaxed);
        }
    });

    let rows: Vec<Row> =
        [values(), bodies(), manners(), protocols(trap_addr)].into_iter().flatten().collect();
    assert!(rows.len() >= 150, "{} rows", rows.len());
    let client = client();
    let mut running = JoinSet::new();
    let seats = Arc::new(Semaphore::new(SEATS));
    for row in rows {
        let (client, seats) = (client.clone(), Arc::clone(&seats));
        running.spawn(async move {
            let waits = row.within_ms > AT_ONCE_MS;
            let _seat = if waits { None } else { Some(seats.acquire().await.unwrap()) };
            against(client, honest, row).await
        });
    }
    let mut wrong = Vec::new();
    while let Some(row) = running.join_next().await {
        wrong.extend(row.unwrap());
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(trapped.load(Relaxed), 0, "a redirect was followed");
    let peak = peak_kib();
    assert!(peak <= PEAK_KIB, "{peak} KiB");
}
