//! WASI 0.2, closed.
//!
//! Guests made by Python, JavaScript or Rust's standard library import it whether they use it or not. Here
//! it leads nowhere: no files, no environment, no arguments, output discarded; a clock that stands still, on
//! which every wait is over at once; randomness that is a function of the call's inputs (invariant 1).
//! Sockets and HTTP are not linked at all: a component that imports them is refused before it is compiled.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sync};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{WasiView as _, async_trait};

use crate::state::CallState;

/// 2000-01-01T00:00:00Z: a date that no runtime takes for an unset clock.
const NOW_S: u64 = 946_684_800;
/// Nanoseconds on the monotonic clock.
const NOW_NS: u64 = 1_000_000_000;
/// Random bytes that one request may ask for.
const RANDOM_BYTES: u64 = 1 << 20;

/// Packages of WASI, version 0.2, that are linked.
pub(crate) const PACKAGES: [&str; 5] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random"];

/// Links it.
pub(crate) fn link(l: &mut Linker<CallState>) -> wasmtime::Result<()> {
    wasmtime_wasi_io::bindings::wasi::io::error::add_to_linker::<_, HasTable>(l, |s| s.ctx().table)?;
    sync::io::poll::add_to_linker::<_, HasTable>(l, |s| s.ctx().table)?;
    sync::io::streams::add_to_linker::<_, HasTable>(l, |s| s.ctx().table)?;

    clocks::wall_clock::add_to_linker::<_, HasStill>(l, |s| Still(s.ctx().table))?;
    clocks::monotonic_clock::add_to_linker::<_, HasStill>(l, |s| Still(s.ctx().table))?;

    random::random::add_to_linker::<_, HasDice>(l, |s| Dice(s))?;
    random::insecure::add_to_linker::<_, HasDice>(l, |s| Dice(s))?;
    random::insecure_seed::add_to_linker::<_, HasDice>(l, |s| Dice(s))?;

    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, CallState::filesystem)?;
    sync::filesystem::types::add_to_linker::<_, WasiFilesystem>(l, CallState::filesystem)?;

    cli::environment::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, CallState::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, CallState::cli)
}

struct HasTable;
impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// Clocks that stand.
struct Still<'a>(&'a mut ResourceTable);

struct HasStill;
impl HasData for HasStill {
    type Data<'a> = Still<'a>;
}

/// A wait that is over. A real one would hold a thread while neither fuel nor the epoch counts.
struct Over;

#[async_trait]
impl Pollable for Over {
    async fn ready(&mut self) {}
}

impl Still<'_> {
    fn over(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let over = self.0.push(Over)?;
        subscribe(self.0, over)
    }
}

impl clocks::wall_clock::Host for Still<'_> {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: NOW_S, nanoseconds: 0 })
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: 1, nanoseconds: 0 })
    }
}

impl clocks::monotonic_clock::Host for Still<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(NOW_NS)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.over()
    }

    fn subscribe_duration(&mut self, _when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.over()
    }
}

/// Randomness from the call's inputs.
struct Dice<'a>(&'a mut CallState);

struct HasDice;
impl HasData for HasDice {
    type Data<'a> = Dice<'a>;
}

impl Dice<'_> {
    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        let len = Some(len).filter(|n| *n <= RANDOM_BYTES).and_then(|n| usize::try_from(n).ok());
        let Some(len) = len else {
            return Err(wasmtime::Error::msg("more than 1 MiB of randomness was asked for at once"));
        };
        let mut drawn = vec![0; len];
        self.0.roll(&mut drawn);
        Ok(drawn)
    }

    fn word(&mut self) -> u64 {
        let mut drawn = [0; 8];
        self.0.roll(&mut drawn);
        u64::from_le_bytes(drawn)
    }
}

impl random::random::Host for Dice<'_> {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.word())
    }
}

impl random::insecure::Host for Dice<'_> {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.word())
    }
}

impl random::insecure_seed::Host for Dice<'_> {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.word(), self.word()))
    }
}
