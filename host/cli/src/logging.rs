//! Logs on standard error; results on standard output.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::error::Failure;

/// Starts logging. Long-running commands log at `info`, the others at `warn`, unless told otherwise.
pub(crate) fn start(filter: Option<&str>, json: bool, long_running: bool) -> Result<(), Failure> {
    let default = if long_running { "info,ort=warn" } else { "warn,ort=error" };
    let filter = EnvFilter::try_new(filter.unwrap_or(default)).map_err(|e| {
        Failure::input(format!("--log: {e}; e.g. --log info or --log warn,nineteen_wire=debug"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
    Ok(())
}
