//! The report for people: one self-contained page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nineteen_domain::Calibration;

use crate::evaluate::{ClassReport, LENGTHS};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:.6rem 0 1.6rem}td,th{padding:.15rem .55rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.small{color:#666;font-size:13px}td.bin{min-width:2.6rem}";

/// Shares of every bin by condition, coloured, and what the tables separate, with what they were measured on.
#[must_use]
pub fn html(
    calibration: &Calibration,
    evaluated: &BTreeMap<String, ClassReport>,
    measured_on: &str,
) -> String {
    let mut out = String::new();
    let title = format!("Calibration of {}", calibration.task);
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><title>{t}</title><style>{STYLE}</style><h1>{t}</h1>\
         <p>Model {m} ({p}), identity {i}. {n} exchanges a condition, at most {u} units each.</p>",
        t = escaped(&title),
        m = escaped(calibration.model.name.as_str()),
        p = escaped(&calibration.model.precision),
        i = calibration.model.identity,
        n = calibration.exchanges,
        u = calibration.units,
    );
    for (name, class) in &calibration.classes {
        let _ = write!(
            out,
            "<h2>{}</h2><p class=small>{}; the sum over an exchange is divided by {:.2}. Share of units in each bin; a bin \
             is blue where it speaks for the miner and red where it speaks against it.</p><table><tr><th>condition",
            escaped(name),
            escaped(&class.statistic),
            class.design_effect
        );
        for edge in &class.edges {
            let _ = write!(out, "<th>≤ {edge}");
        }
        out.push_str("<th>above");
        for (condition, counts) in &class.honest {
            line(&mut out, condition, counts, None);
        }
        for (suspect, table) in &class.suspects {
            line(&mut out, suspect, &table.counts, Some(&table.lambda));
        }
        out.push_str("</table>");
        if let Some(report) = evaluated.get(name) {
            separation(&mut out, report, measured_on);
        }
    }
    out
}

fn line(out: &mut String, name: &str, counts: &[u64], lambda: Option<&[f64]>) {
    let all = counts.iter().sum::<u64>().max(1) as f64;
    let _ = write!(out, "<tr><td>{}", escaped(name));
    for (bin, n) in counts.iter().enumerate() {
        let said = lambda.and_then(|l| l.get(bin)).copied().unwrap_or(0.0);
        let colour = if said > 0.0 { "200,40,40" } else { "40,90,200" };
        let strength = (said.abs() / 5.0).min(1.0) * 0.6;
        let _ = write!(
            out,
            "<td class=bin style=\"background:rgba({colour},{strength:.2})\" title=\"λ {said:.2}, {n} units\">{:.3}",
            *n as f64 / all
        );
    }
}

fn separation(out: &mut String, report: &ClassReport, measured_on: &str) {
    let (streams, accused, (low, high)) = report.false_alarms();
    let _ = write!(
        out,
        "<p>{}: {} honest exchanges. Of {streams} honest streams of 60 exchanges the test accused {accused} at α = 0.001 \
         (95 % interval {low:.5} to {high:.5}); the largest mean of e^Λ is {:.3}.</p><table><tr><th>suspect",
        escaped(measured_on),
        report.honest_exchanges,
        report.worst_mean_e
    );
    for length in LENGTHS {
        let _ = write!(out, "<th>AUC at {length}");
    }
    for length in LENGTHS {
        let _ = write!(out, "<th>found by {length}");
    }
    out.push_str("<th>units to a verdict");
    for row in &report.rows {
        let _ = write!(out, "<tr><td>{}", escaped(&row.suspect));
        for auc in row.ours.auc {
            let _ = write!(out, "<td>{auc:.4}");
        }
        for share in row.ours.detected {
            let _ = write!(out, "<td>{share:.3}");
        }
        match row.units_to_decision {
            Some(units) => {
                let _ = write!(out, "<td>{units}");
            }
            None => out.push_str("<td>never"),
        }
    }
    out.push_str("</table>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
