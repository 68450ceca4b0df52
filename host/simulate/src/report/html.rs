//! The page: tables and plots in one file, without scripts, readable in dark and light.

use std::fmt::Write as _;

use super::Report;
use super::plot::{Bars, Line, bars, escaped, lines};
use crate::agreement::AgreementReport;
use crate::machine::float;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1d21;--paper:#fdfdfb;--soft:#6a7178;--grid:#dfe2e5;--a:#2f6db3;--b:#c8702a;--c:#4c8f4f}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e6e8;--paper:#16181b;--soft:#9aa1a8;--grid:#33383d;--a:#6ea8e6;--b:#e59a5c;--c:#86c388}}\
body{margin:2rem auto;max-width:56rem;padding:0 1rem;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}p.small{color:var(--soft);font-size:.9rem}\
.wide{overflow-x:auto}svg{width:100%;min-width:36rem;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--ink)}\
.name{text-anchor:end}.tick{text-anchor:middle;fill:var(--soft)}.grid{stroke:var(--grid)}.one{stroke:var(--ink);stroke-dasharray:4 3}\
.range{stroke:var(--ink);stroke-width:1.2}.s0{fill:var(--a)}.s1{fill:var(--b)}.s2{fill:var(--c)}\
.l0,.l1,.l2{fill:none;stroke-width:2.2}.l0{stroke:var(--a)}.l1{stroke:var(--b)}.l2{stroke:var(--c)}\
.b0,.b1,.b2{opacity:.18}.b0{fill:var(--a)}.b1{fill:var(--b)}.b2{fill:var(--c)}\
.key{display:inline-block;width:.8em;height:.8em;margin:0 .4em 0 1em;vertical-align:-.05em}.k0{background:var(--a)}.k1{background:var(--b)}.k2{background:var(--c)}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--grid)}\
th:first-child,td:first-child,td.text{text-align:left}";

/// The whole page.
pub(crate) fn of(report: &Report) -> String {
    let mut out = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    let _ = write!(out, "<title>nineteen simulate</title><style>{STYLE}</style></head><body>");
    let _ = write!(out, "<h1>The subnet, simulated</h1><p>{}</p>", escaped(&report.parameters.line()));
    out.push_str("<p>");
    for (i, policy) in report.parameters.policies.iter().enumerate() {
        let _ = write!(out, "<span class=\"key k{i}\"></span>{}", escaped(policy));
    }
    out.push_str("</p>");
    strategies(report, &mut out);
    agreement(report, &mut out);
    scale(report, &mut out);
    let t = &report.timing;
    let _ = write!(
        out,
        "<p class=\"small\">{:.1} s, {:.1} s of CPU, at most {:.0} MiB of memory.</p></body></html>",
        t.wall_s,
        t.cpu_s,
        float(t.peak_rss_bytes) / float(1 << 20)
    );
    out
}

fn table(head: &[&str], rows: &[Vec<String>], out: &mut String) {
    out.push_str("<div class=\"wide\"><table><thead><tr>");
    for h in head {
        let _ = write!(out, "<th>{}</th>", escaped(h));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escaped(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
}

fn strategies(report: &Report, out: &mut String) {
    if report.strategies.is_empty() {
        return;
    }
    out.push_str(
        "<h2>What a strategy earns, against honest play on the same hardware</h2>\
         <p class=\"small\">The dashed line is honesty: a bar beyond it pays. Logarithmic; what is below 0.01 ends \
         at the border. Thin lines span the seeds.</p>",
    );
    let groups: Vec<Bars> = report
        .strategies
        .iter()
        .map(|row| Bars {
            name: if row.reference { format!("{} (honest)", row.name) } else { row.name.clone() },
            values: row
                .by_policy
                .iter()
                .map(|w| (w.of_honest.mean, w.of_honest.min, w.of_honest.max))
                .collect(),
        })
        .collect();
    let _ = write!(out, "<div class=\"wide\">{}</div>", bars(&groups, 0.01, 100.0));
    let mut head = vec!["strategy", "what it does"];
    for policy in &report.parameters.policies {
        head.push(policy);
        head.push("work");
    }
    let rows: Vec<Vec<String>> = report
        .strategies
        .iter()
        .map(|row| {
            let mut cells = vec![row.name.clone(), row.about.clone()];
            for w in &row.by_policy {
                cells.push(format!("{:.3} ± {:.3}", w.of_honest.mean, w.of_honest.deviation));
                cells.push(format!("{:.2}", w.work));
            }
            cells
        })
        .collect();
    table(&head, &rows, out);
}

fn agreement(report: &Report, out: &mut String) {
    let mut populations: Vec<&str> = report.agreement.iter().map(|a| a.population.as_str()).collect();
    populations.dedup();
    for population in populations {
        let of: Vec<&AgreementReport> =
            report.agreement.iter().filter(|a| a.population == population).collect();
        agreement_about(population, &of, out);
    }
}

fn agreement_about(population: &str, of: &[&AgreementReport], out: &mut String) {
    let Some(first) = of.first() else { return };
    let _ = write!(
        out,
        "<h2>Agreement of {} validators about {} miners ({population})</h2><p class=\"small\">Cosine between two validators' \
         weights by the number of periods, line: median, band: 10th percentile to most.</p>",
        first.validators, first.miners
    );
    let curves: Vec<Line> = of
        .iter()
        .map(|a| Line {
            points: a
                .after
                .iter()
                .map(|p| (float(p.periods), p.cosine.p10, p.cosine.median, p.cosine.max))
                .collect(),
        })
        .collect();
    let least = curves.iter().flat_map(|l| l.points.iter().map(|p| p.1)).fold(1.0, f64::min);
    // A tenth below, in whole hundredths.
    let low = ((least * 100.0).floor() / 100.0 - 0.01).clamp(0.0, 0.99);
    let _ = write!(out, "<div class=\"wide\">{}</div>", lines(&curves, low));
    for a in of {
        let _ = write!(out, "<h3>{}</h3>", escaped(&a.policy));
        let rows: Vec<Vec<String>> = a
            .after
            .iter()
            .map(|p| {
                let shown = [p.cosine.min, p.cosine.p10, p.cosine.median, p.trust.min, p.trust.median];
                std::iter::once(p.periods.to_string())
                    .chain(shown.iter().map(|x| format!("{x:.4}")))
                    .collect()
            })
            .collect();
        table(&["periods", "cosine min", "p10", "median", "trust min", "median"], &rows, out);
    }
}

fn scale(report: &Report, out: &mut String) {
    let Some(first) = report.scale.first() else { return };
    let _ = write!(
        out,
        "<h2>{} miners, {} tasks, {} periods</h2><p class=\"small\">Weight of one miner of a kind over that of an \
         honest one of ordinary speed.</p>",
        first.miners, first.tasks, first.periods
    );
    let groups: Vec<Bars> = first
        .kinds
        .iter()
        .map(|kind| Bars {
            name: kind.kind.clone(),
            values: report
                .scale
                .iter()
                .filter_map(|s| s.kinds.iter().find(|k| k.kind == kind.kind))
                .map(|k| (k.of_honest, k.of_honest, k.of_honest))
                .collect(),
        })
        .collect();
    let _ = write!(out, "<div class=\"wide\">{}</div>", bars(&groups, 0.01, 1000.0));
    for s in &report.scale {
        let _ = write!(
            out,
            "<h3>{}</h3><p class=\"small\">{} probes: {} answered, {} rate-limited, {} failed, {} judged, {} \
             unchecked. {:.1} % of what was announced last is credited.</p>",
            escaped(&s.policy),
            s.sent,
            s.answered,
            s.rate_limited,
            s.failed,
            s.judged,
            s.unchecked,
            s.credited * 100.0
        );
        let rows: Vec<Vec<String>> = s
            .kinds
            .iter()
            .map(|k| {
                vec![
                    k.kind.clone(),
                    k.miners.to_string(),
                    format!("{:.6}", k.weight),
                    format!("{:.3}", k.of_honest),
                    format!("{:.2} %", k.share * 100.0),
                    format!("{:.1} %", k.credited * 100.0),
                ]
            })
            .collect();
        table(&["kind", "miners", "weight of one", "of honest", "share of all", "credited"], &rows, out);
    }
}
