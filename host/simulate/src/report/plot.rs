//! Plots as SVG: bars beside each other, and lines over a logarithmic axis. Colours come from the page's style.

use std::fmt::Write as _;

use crate::machine::float;

/// Text inside HTML and SVG.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A group of bars with a name: one value per series, and from where to where it was seen.
pub(crate) struct Bars {
    pub(crate) name: String,
    pub(crate) values: Vec<(f64, f64, f64)>,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 170.0;
const BAR: f64 = 11.0;

/// Horizontal bars from `low` to `high` on a logarithmic axis, a line at 1. What is below or above ends at the
/// border; the value stands beside it.
pub(crate) fn bars(groups: &[Bars], low: f64, high: f64) -> String {
    let plot = WIDTH - LABELS - 70.0;
    let x = |v: f64| LABELS + plot * (v.clamp(low, high) / low).ln() / (high / low).ln();
    let series = groups.iter().map(|g| g.values.len()).max().unwrap_or(0);
    let group = float(series as u64) * BAR + 8.0;
    let height = float(groups.len() as u64) * group + 30.0;
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    let mut tick = low;
    while tick <= high * 1.001 {
        let (at, to) = (x(tick), height - 20.0);
        let class = if (tick - 1.0).abs() < 1e-9 { "one" } else { "grid" };
        let _ =
            write!(out, "<line class=\"{class}\" x1=\"{at:.1}\" y1=\"0\" x2=\"{at:.1}\" y2=\"{to:.1}\"/>");
        let _ = write!(out, "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\">{tick}</text>", height - 6.0);
        // Powers of ten are computed anew, so that 1 is 1.
        tick = 10_f64.powf((tick.log10() + 1.0).round());
    }
    let mut y = 4.0;
    for g in groups {
        let middle = y + float(series as u64) * BAR / 2.0 + 4.0;
        let _ = write!(
            out,
            "<text class=\"name\" x=\"{}\" y=\"{middle:.1}\">{}</text>",
            LABELS - 8.0,
            escaped(&g.name)
        );
        for (i, (value, from, to)) in g.values.iter().enumerate() {
            let top = y + float(i as u64) * BAR;
            let end = x(*value);
            let _ = write!(
                out,
                "<rect class=\"s{i}\" x=\"{LABELS}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{}\"/>",
                (end - LABELS).max(0.5),
                BAR - 2.0
            );
            let line = top + (BAR - 2.0) / 2.0;
            let _ = write!(
                out,
                "<line class=\"range\" x1=\"{:.1}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\"/>",
                x(*from),
                x(*to)
            );
            let beside = x(*to).max(end) + 5.0;
            let _ = write!(
                out,
                "<text class=\"value\" x=\"{beside:.1}\" y=\"{:.1}\">{value:.3}</text>",
                top + BAR - 3.0
            );
        }
        y += group;
    }
    out.push_str("</svg>");
    out
}

/// A line through points, and the band around it.
pub(crate) struct Line {
    /// (x, low, middle, high), ascending in x, all x above 0.
    pub(crate) points: Vec<(f64, f64, f64, f64)>,
}

/// Lines over a logarithmic x axis, with their bands, from `low` to 1.
pub(crate) fn lines(all: &[Line], low: f64) -> String {
    const HEIGHT: f64 = 300.0;
    let xs = || all.iter().flat_map(|l| l.points.iter().map(|p| p.0));
    let (least, most) = (xs().fold(f64::MAX, f64::min).max(1e-9), xs().fold(1.0, f64::max));
    let x = |v: f64| 60.0 + (WIDTH - 90.0) * (v / least).ln() / (most / least).ln().max(1e-9);
    let y = |v: f64| 10.0 + (HEIGHT - 45.0) * (1.0 - v.clamp(low, 1.0)) / (1.0 - low);
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for i in 0..=5_u32 {
        let v = low + (1.0 - low) * f64::from(i) / 5.0;
        let at = y(v);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"60\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\"/>",
            WIDTH - 30.0
        );
        let _ = write!(out, "<text class=\"name\" x=\"54\" y=\"{:.1}\">{v:.3}</text>", at + 4.0);
    }
    if let Some(first) = all.first() {
        for p in &first.points {
            let (at, below) = (x(p.0), HEIGHT - 14.0);
            let _ = write!(out, "<text class=\"tick\" x=\"{at:.1}\" y=\"{below}\">{}</text>", p.0);
        }
    }
    for (i, line) in all.iter().enumerate() {
        let place = |x: f64, y: f64| format!("{x:.1},{y:.1}");
        let above = line.points.iter().map(|p| place(x(p.0), y(p.3)));
        let below = line.points.iter().rev().map(|p| place(x(p.0), y(p.1)));
        let band: Vec<String> = above.chain(below).collect();
        let middle: Vec<String> = line.points.iter().map(|p| place(x(p.0), y(p.2))).collect();
        let _ = write!(out, "<polygon class=\"b{i}\" points=\"{}\"/>", band.join(" "));
        let _ = write!(out, "<polyline class=\"l{i}\" points=\"{}\"/>", middle.join(" "));
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honesty_has_its_line_and_names_are_escaped() {
        let svg =
            bars(&[Bars { name: "a<b".into(), values: vec![(0.5, 0.4, 0.6), (2.0, 2.0, 2.0)] }], 0.01, 100.0);
        assert_eq!(svg.matches("class=\"one\"").count(), 1);
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }

    #[test]
    fn nothing_out_of_range_leaves_the_picture() {
        let svg = lines(&[Line { points: vec![(1.0, -5.0, 0.9, 9.0), (48.0, 0.9, 1.0, 1.0)] }], 0.8);
        assert!(svg.contains("polyline") && !svg.contains("NaN") && !svg.contains("inf"));
    }
}
