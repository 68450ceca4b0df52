//! Tables and JSON on standard output.

use std::io::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::Failure;

/// A table with a head; every column but the first is aligned right.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut t = Table::new();
    t.load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head.to_vec());
    for column in t.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    t
}

/// A number with six significant places at most, without trailing noise.
pub(crate) fn number(x: f64) -> String {
    if x == 0.0 {
        "0".into()
    } else if x.abs() >= 1000.0 {
        format!("{x:.0}")
    } else if x.abs() >= 1.0 {
        format!("{x:.2}")
    } else {
        format!("{x:.4}")
    }
}

/// A number or a dash.
pub(crate) fn maybe(x: Option<f64>) -> String {
    x.map_or_else(|| "–".into(), number)
}

/// Text to standard output. A reader that went away (`| head`) is not an error.
pub(crate) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::running(format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// The report as pretty JSON.
pub(crate) fn json<T: Serialize>(report: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|e| Failure::running(format!("the report is no JSON: {e}")))?;
    out(&text)
}

/// How long ago a moment was, for people.
pub(crate) fn ago(at_us: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let s = now.as_secs().saturating_sub(at_us / 1_000_000);
    match s {
        0..=119 => format!("{s} s ago"),
        120..=7_199 => format!("{} min ago", s / 60),
        7_200..=172_799 => format!("{} h ago", s / 3_600),
        _ => format!("{} days ago", s / 86_400),
    }
}
