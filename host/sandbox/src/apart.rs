//! Compiling in a process of its own, which can be killed.
//!
//! wasmtime cannot be interrupted while it compiles, and what somebody else wrote may be made to compile for hours or to take
//! all memory there is. In a child both are bounded: it is killed at its limit, and it may have so much memory and no more.
//! Bytes go in by its standard input and machine code comes out by its standard output: no file is between them that anybody
//! could change.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::engine::compiler;
use crate::error::LoadFault;

/// How the child is asked; the program has to hand [`compile`] its standard input and output then.
pub const ARGUMENT: &str = "compile-component";
/// Memory that the compiler may write to.
const MEMORY_BYTES: u64 = 4 << 30;
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// Of its words.
const MOST_WORDS: u64 = 4_096;

/// The child's part: a component in, machine code out. `calls` is the sandbox's own number.
///
/// # Errors
/// What wasmtime says, or the pipe.
pub fn compile(calls: u32, mut from: impl Read, mut to: impl Write) -> Result<(), String> {
    let limit = Rlimit { current: Some(MEMORY_BYTES), maximum: Some(MEMORY_BYTES) };
    setrlimit(Resource::Data, limit).map_err(|e| format!("its memory cannot be limited: {e}"))?;
    let mut component = Vec::new();
    from.read_to_end(&mut component).map_err(|e| e.to_string())?;
    let engine = compiler(calls).map_err(|e| format!("{e:#}"))?;
    let compiled = engine.precompile_component(&component).map_err(|e| format!("{e:#}"))?;
    to.write_all(&compiled).and_then(|()| to.flush()).map_err(|e| e.to_string())
}

/// The parent's part. Blocks until the child has ended, at most so long.
pub(crate) fn ask(
    program: &Path,
    calls: u32,
    component: &[u8],
    limit: Duration,
    most: u64,
) -> Result<Vec<u8>, LoadFault> {
    let host = |e: std::io::Error| LoadFault::Host(format!("{}: {e}", program.display()));
    let mut child = Command::new(program)
        .arg(ARGUMENT)
        .arg(calls.to_string())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(host)?;
    let (to, out, words) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut to), Some(out), Some(words)) = (to, out, words) else {
        end(&mut child);
        return Err(LoadFault::Host("a process without its pipes".into()));
    };
    std::thread::scope(|scope| {
        let send = scope.spawn(move || to.write_all(component));
        let read = scope.spawn(move || {
            let mut bytes = Vec::new();
            out.take(most.saturating_add(1)).read_to_end(&mut bytes).map(|_| bytes)
        });
        let read_words = scope.spawn(move || {
            let mut text = Vec::new();
            // Whatever came is better than nothing.
            let _ = words.take(MOST_WORDS).read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(host)? {
                break status;
            }
            // Also of one that says more than it may, and waits for somebody to read it.
            if begun.elapsed() >= limit {
                end(&mut child);
                return Err(LoadFault::CompileTimeout { seconds: limit.as_secs() });
            }
            std::thread::sleep(LOOK);
        };
        let joined = |e: Box<dyn std::any::Any + Send>| {
            drop(e);
            LoadFault::Host("a thread that reads from the compiler ended early".into())
        };
        let said = read_words.join().map_err(joined)?;
        if !status.success() {
            let words = if said.is_empty() {
                format!(
                    "the compiler ended with {status}: the component may need more memory than {} MiB",
                    MEMORY_BYTES >> 20
                )
            } else {
                said
            };
            return Err(LoadFault::Compile(words));
        }
        send.join().map_err(joined)?.map_err(host)?;
        let bytes = read.join().map_err(joined)?.map_err(host)?;
        if bytes.len() as u64 > most {
            return Err(LoadFault::Compile(format!("it compiles to more than {most} bytes")));
        }
        Ok(bytes)
    })
}

/// Gone already where this fails.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
