//! Plain text tables.

use std::fmt::Write as _;

use super::Report;
use crate::machine::float;

/// Rows of cells under a head, columns as wide as their widest cell, all but the first to the right.
fn columns(head: &[String], rows: &[Vec<String>]) -> String {
    let all = || std::iter::once(head).chain(rows.iter().map(Vec::as_slice));
    let widths: Vec<usize> = (0..head.len())
        .map(|i| all().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| {
            if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn words(head: &[&str]) -> Vec<String> {
    head.iter().map(|h| (*h).to_owned()).collect()
}

/// Everything that a report holds.
pub(crate) fn of(report: &Report) -> String {
    let mut out = report.parameters.line();
    out.push('\n');
    strategies(report, &mut out);
    agreement(report, &mut out);
    scale(report, &mut out);
    let t = &report.timing;
    let mib = float(t.peak_rss_bytes) / float(1 << 20);
    let _ = writeln!(out, "\n{:.1} s, {:.1} s of CPU, at most {mib:.0} MiB", t.wall_s, t.cpu_s);
    out
}

fn strategies(report: &Report, out: &mut String) {
    if report.strategies.is_empty() {
        return;
    }
    out.push_str(
        "\nReward over that of honest play on the same hardware (mean, min to max over seeds; work done)\n",
    );
    let mut head = words(&["strategy"]);
    head.extend(report.parameters.policies.iter().map(|p| format!("{p} (range) work")));
    head.push("".into());
    let rows: Vec<Vec<String>> = report
        .strategies
        .iter()
        .map(|row| {
            let mut cells = vec![row.name.clone()];
            cells.extend(row.by_policy.iter().map(|w| {
                let s = &w.of_honest;
                let mark = if w.margin > 0.0 && !row.reference { '!' } else { ' ' };
                format!("{:.3}{mark} ({:.3} to {:.3}) {:.2}", s.mean, s.min, s.max, w.work)
            }));
            cells.push(if row.reference { "reference".into() } else { String::new() });
            cells
        })
        .collect();
    out.push_str(&columns(&head, &rows));
}

fn agreement(report: &Report, out: &mut String) {
    for a in &report.agreement {
        let _ = writeln!(
            out,
            "\nAgreement of {} validators about {} miners ({}) under {}",
            a.validators, a.miners, a.population, a.policy
        );
        let head = words(&["periods", "cosine min", "p10", "median", "p90", "trust min", "median"]);
        let rows: Vec<Vec<String>> = a
            .after
            .iter()
            .map(|p| {
                let mut cells = vec![p.periods.to_string()];
                let shown =
                    [p.cosine.min, p.cosine.p10, p.cosine.median, p.cosine.p90, p.trust.min, p.trust.median];
                cells.extend(shown.iter().map(|x| format!("{x:.4}")));
                cells
            })
            .collect();
        out.push_str(&columns(&head, &rows));
    }
}

fn scale(report: &Report, out: &mut String) {
    for s in &report.scale {
        let _ = writeln!(
            out,
            "\n{} miners, {} tasks, {} periods under {}, weights every {} periods",
            s.miners, s.tasks, s.periods, s.policy, s.settle_every
        );
        let _ = writeln!(
            out,
            "{} probes: {} answered, {} rate-limited, {} failed; {} held back; {} judged, {} unchecked; {:.1} % credited",
            s.sent,
            s.answered,
            s.rate_limited,
            s.failed,
            s.held_back,
            s.judged,
            s.unchecked,
            s.credited * 100.0
        );
        let head = words(&["kind", "miners", "weight of one", "of honest", "share of all", "credited"]);
        let rows: Vec<Vec<String>> = s
            .kinds
            .iter()
            .map(|k| {
                vec![
                    k.kind.clone(),
                    k.miners.to_string(),
                    format!("{:.6}", k.weight),
                    format!("{:.3}", k.of_honest),
                    format!("{:.4}", k.share),
                    format!("{:.3}", k.credited),
                ]
            })
            .collect();
        out.push_str(&columns(&head, &rows));
    }
}
