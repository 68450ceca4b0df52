//! Extism's side of `cargo xtask bench sandbox`: does what it is told on standard input, line by line, and says how many
//! nanoseconds that took. So the bench and this take turns, and a machine that is busy is busy for both.
//!
//! `fresh N`, `warm N`: N calls. `threads T N`: N fresh calls on each of T threads. `load N`: N loads from Extism's cache.
//! `live N`: bytes of memory that N more live instances take, instead of nanoseconds. `pooled` instead of `plain` as the first
//! argument puts instances into a pool, as this project's sandbox does.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The budgets that the templates of tasks have.
const FUEL: u64 = 50_000_000;
const PAGES: u32 = 256;
const WALL: Duration = Duration::from_secs(1);

fn compile(wasm: &[u8], cache: &Path, pooled: bool) -> Result<CompiledPlugin> {
    let manifest = Manifest::new([Wasm::data(wasm)]).with_memory_max(PAGES).with_timeout(WALL);
    let mut builder =
        PluginBuilder::new(manifest).with_wasi(false).with_fuel_limit(FUEL).with_cache_config(cache);
    if pooled {
        let mut config = wasmtime::Config::new();
        let mut pool = wasmtime::PoolingAllocationConfig::new();
        pool.total_core_instances(1024)
            .total_memories(1024)
            .total_tables(1024)
            .linear_memory_keep_resident(2 << 20);
        config.allocation_strategy(wasmtime::InstanceAllocationStrategy::Pooling(pool));
        builder = builder.with_wasmtime_config(config);
    }
    Ok(builder.compile()?)
}

fn call(plugin: &mut Plugin, input: &[u8]) -> Result<(u64, u64)> {
    let said: Vec<u8> = plugin.call("score", input)?;
    let (right, asked) = said.split_first_chunk::<8>().ok_or("no result")?;
    let asked: [u8; 8] = asked.try_into()?;
    Ok((u64::from_le_bytes(*right), u64::from_le_bytes(asked)))
}

fn fresh(compiled: &CompiledPlugin, input: &[u8], calls: u64) -> Result<()> {
    for _ in 0..calls {
        std::hint::black_box(call(&mut Plugin::new_from_compiled(compiled)?, input)?);
    }
    Ok(())
}

fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("no field")?.parse()?;
    Ok(pages * 4096)
}

fn main() -> Result<()> {
    let [_, mode, wasm, cache, input] = &*std::env::args().collect::<Vec<_>>() else {
        return Err("plain|pooled PLUGIN CACHE-CONFIG INPUT".into());
    };
    let (pooled, wasm, cache) = (mode == "pooled", &*std::fs::read(wasm)?, Path::new(cache));
    let input = std::fs::read(input)?;
    let compiled = compile(wasm, cache, pooled)?;
    let mut kept = Plugin::new_from_compiled(&compiled)?;
    let (right, asked) = call(&mut kept, &input)?;
    let mut out = std::io::stdout();
    writeln!(out, "ready {right} {asked}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let began = Instant::now();
        let mut said = None;
        match &*words {
            ["fresh", n] => fresh(&compiled, &input, n.parse()?)?,
            ["warm", n] => {
                for _ in 0..n.parse::<u64>()? {
                    std::hint::black_box(call(&mut kept, &input)?);
                }
            }
            ["threads", threads, n] => {
                let n: u64 = n.parse()?;
                std::thread::scope(|scope| {
                    let all: Vec<_> = (0..threads.parse::<u64>()?)
                        .map(|_| scope.spawn(|| fresh(&compiled, &input, n)))
                        .collect();
                    all.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread failed")?)
                })?;
            }
            ["load", n] => {
                for _ in 0..n.parse::<u64>()? {
                    std::hint::black_box(compile(wasm, cache, pooled)?);
                }
            }
            ["live", n] => {
                let before = resident()?;
                let mut live = Vec::new();
                for _ in 0..n.parse::<u64>()? {
                    let mut plugin = Plugin::new_from_compiled(&compiled)?;
                    call(&mut plugin, &input)?;
                    live.push(plugin);
                }
                said = Some(u128::from(resident()?.saturating_sub(before)));
                drop(live);
            }
            _ => return Err(format!("{line:?} is not known").into()),
        }
        writeln!(out, "{}", said.unwrap_or(began.elapsed().as_nanos()))?;
        out.flush()?;
    }
    Ok(())
}
