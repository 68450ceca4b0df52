//! Extism, in a process of its own that takes turns with this one: its release needs another compiler than the host.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The program behind `benches/sandbox/extism`, told what to do line by line.
pub(crate) struct Extism {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    /// Right and asked, as its plugin counted them.
    pub(crate) said: (u64, u64),
}

impl Extism {
    /// Starts it, with instances from a pool or as it does by itself. `None` where it was not built.
    pub(crate) fn start(contenders: &Path, scratch: &Path, pooled: bool, input: &[u8]) -> Option<Self> {
        let program = contenders.join("nineteen-bench-extism");
        if !program.is_file() {
            return None;
        }
        let (cache, file) = (scratch.join("extism.toml"), scratch.join("input"));
        let folder = scratch.join("extism-cache");
        std::fs::write(&cache, format!("[cache]\ndirectory = {folder:?}\n")).expect("its settings");
        std::fs::write(&file, input).expect("its input");
        let mut child = Command::new(program)
            .arg(if pooled { "pooled" } else { "plain" })
            .arg(contenders.join("extism.wasm"))
            .args([&cache, &file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Extism starts");
        let asks = child.stdin.take().expect("a pipe");
        let says = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut extism = Self { child, asks, says, said: (0, 0) };
        let ready = extism.line();
        let mut words = ready.split(' ').skip(1).map(|w| w.parse().expect("a number"));
        extism.said = (words.next().expect("right"), words.next().expect("asked"));
        Some(extism)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("Extism answers");
        assert!(!line.is_empty(), "Extism ended; what it said stands above");
        line.trim().to_owned()
    }

    /// What an order came to: nanoseconds, or bytes for `live`.
    pub(crate) fn order(&mut self, words: &str) -> f64 {
        writeln!(self.asks, "{words}").expect("Extism listens");
        self.asks.flush().expect("Extism listens");
        self.line().parse().expect("a number")
    }
}

impl Drop for Extism {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
