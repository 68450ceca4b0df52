//! Stacks as a picture: every function as wide as the time in it, what it calls above it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1_200.0;
const BAR: f64 = 18.0;
/// Narrower ones are left out.
const NARROWEST: f64 = 0.5;
/// Of a letter.
const LETTER: f64 = 7.0;

#[derive(Default)]
struct Frame {
    count: u64,
    calls: BTreeMap<String, Frame>,
}

/// An SVG of these stacks, outermost function first. Empty where nothing was seen.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "pixels")]
pub fn flamegraph(stacks: &[(Vec<String>, u64)]) -> String {
    let mut root = Frame::default();
    let mut deepest = 0;
    for (stack, count) in stacks {
        root.count = root.count.saturating_add(*count);
        deepest = deepest.max(stack.len());
        let mut at = &mut root;
        for name in stack {
            at = at.calls.entry(name.clone()).or_default();
            at.count = at.count.saturating_add(*count);
        }
    }
    let height = BAR * (deepest as f64 + 1.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" \
         font-size=\"11\">\n"
    );
    draw(&mut svg, &root, "all", 0.0, height - BAR, WIDTH / root.count.max(1) as f64, root.count.max(1));
    svg.push_str("</svg>\n");
    svg
}

#[expect(clippy::cast_precision_loss, reason = "pixels")]
fn draw(svg: &mut String, frame: &Frame, name: &str, x: f64, y: f64, scale: f64, all: u64) {
    let width = frame.count as f64 * scale;
    if width < NARROWEST {
        return;
    }
    let name = escaped(name);
    let percent = frame.count as f64 * 100.0 / all as f64;
    // The same function has the same colour everywhere.
    let hue = name.bytes().fold(7_u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into())) % 50;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of letters")]
    let letters = ((width - 4.0) / LETTER).max(0.0) as usize;
    let shown: String = if letters < 3 { String::new() } else { name.chars().take(letters).collect() };
    // An entity that was cut in two would be no XML.
    let shown = shown
        .rfind('&')
        .filter(|i| !shown.get(*i..).unwrap_or("").contains(';'))
        .map_or(shown.as_str(), |i| shown.get(..i).unwrap_or(""));
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<g><title>{name} ({} samples, {percent:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
         height=\"{}\" fill=\"hsl({hue},80%,65%)\"/><text x=\"{:.1}\" y=\"{:.1}\">{shown}</text></g>",
        frame.count,
        BAR - 1.0,
        x + 2.0,
        y + 13.0
    );
    let mut at = x;
    for (name, called) in &frame.calls {
        draw(svg, called, name, at, y - BAR, scale, all);
        at += called.count as f64 * scale;
    }
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calls_is_as_wide_as_all_that_it_calls() {
        let stack = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let svg = flamegraph(&[
            (stack(&["score", "Vec<T>::push"]), 3),
            (stack(&["score", "sort"]), 1),
            (stack(&["count"]), 4),
        ]);
        assert!(svg.contains("all (8 samples, 100.0 %)"), "{svg}");
        assert!(svg.contains("score (4 samples, 50.0 %)"), "{svg}");
        assert!(svg.contains("Vec&lt;T&gt;::push (3 samples, 37.5 %)"), "{svg}");
        assert!(flamegraph(&[]).ends_with("</svg>\n"));
    }
}
