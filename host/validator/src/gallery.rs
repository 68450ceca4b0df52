//! Pictures side by side: what was asked, what a miner gave, what the checker made of the same request, and the verdict.
//!
//! For: people who want to see why a picture earned what it earned. Not for: judging. Every byte here may be a stranger's:
//! texts are escaped, and only what begins like a PNG, JPEG, WebP or GIF is shown.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use nineteen_domain::check::Evidence;
use nineteen_domain::ledger::{Judgement, QualitySample};
use nineteen_domain::{Hotkey, TaskName};
use nineteen_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// Judged exchanges of one miner that are looked through for pictures.
const LOOKED_AT: usize = 2_000;
/// A picture that is shown has at most this many bytes.
const MOST_BYTES: usize = 4 << 20;
const PROMPT: usize = 300;

/// What a gallery shows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// One task alone.
    pub task: Option<TaskName>,
    /// One miner alone.
    pub miner: Option<Hotkey>,
    /// Pictures a miner and task, newest first.
    pub each: usize,
}

/// One exchange.
#[derive(Debug, Clone, Serialize)]
pub struct Shot {
    /// Which probe it was.
    pub probe: String,
    /// Whose.
    pub miner: Hotkey,
    /// Of which task.
    pub task: TaskName,
    /// What was asked for.
    pub prompt: String,
    /// The photograph that came with it, as a `data:` address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub photo: Option<String>,
    /// What the miner gave, the same way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    /// What the checker made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
    /// `scored`, or the violation or reason.
    pub verdict: String,
    /// In [0, 1].
    pub quality: f64,
    /// Why: code and number.
    pub reasons: Vec<(String, f64)>,
}

#[derive(Deserialize)]
struct Asked {
    prompt: Option<String>,
    image: Option<String>,
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<Datum>,
}

#[derive(Deserialize)]
struct Datum {
    b64_json: Option<String>,
}

/// Judged exchanges with a prompt and a picture, by task and miner. Reads from disk: call it from a blocking thread.
///
/// # Errors
/// When the store cannot be read.
pub fn shots(store: &Store, wanted: &Wanted) -> Result<Vec<Shot>, StoreError> {
    let mut shots = Vec::new();
    for (task, miner) in store.pairs()? {
        if wanted.task.as_ref().is_some_and(|t| *t != task) || wanted.miner.is_some_and(|m| m != miner) {
            continue;
        }
        let mut left = wanted.each;
        for sample in store.samples(&miner, &task, 0, LOOKED_AT)? {
            if left == 0 {
                break;
            }
            if let Some(shot) = shot(store, &sample)? {
                shots.push(shot);
                left -= 1;
            }
        }
    }
    Ok(shots)
}

/// `None` for an exchange that is gone or has nothing to do with pictures.
fn shot(store: &Store, sample: &QualitySample) -> Result<Option<Shot>, StoreError> {
    let Some((request, exchange)) = store.exchange(&sample.probe)? else { return Ok(None) };
    let Ok(asked) = serde_json::from_slice::<Asked>(&request.body) else { return Ok(None) };
    let Some(prompt) = asked.prompt else { return Ok(None) };
    let answered: Option<Answered> = serde_json::from_slice(&exchange.body()).ok();
    let given = answered.and_then(|a| a.data.into_iter().next()).and_then(|d| d.b64_json);
    let made = store.evidence(&sample.probe)?.into_iter().flatten().find_map(|(check, evidence)| {
        let Evidence::Answered(answer) = evidence else { return None };
        (check.kind == "image.generate").then(|| answer.blobs.into_iter().next()).flatten()
    });
    if given.is_none() && made.is_none() {
        return Ok(None);
    }
    let verdict = match &sample.judgement {
        Judgement::Scored => "scored".to_owned(),
        Judgement::Violation(why) => format!("violation: {why}"),
        Judgement::Inconclusive(why) => format!("inconclusive: {why}"),
    };
    let shown = |text: Option<String>| text.and_then(|t| STANDARD.decode(t).ok()).and_then(|b| address(&b));
    Ok(Some(Shot {
        probe: sample.probe.to_string(),
        miner: sample.probe.miner,
        task: sample.probe.task.clone(),
        prompt: prompt.chars().take(PROMPT).collect(),
        photo: shown(asked.image),
        given: shown(given),
        made: made.and_then(|b: Bytes| address(&b)),
        verdict,
        quality: sample.quality,
        reasons: sample.reasons.clone(),
    }))
}

/// A picture as a `data:` address; `None` for bytes that begin like nothing that is shown.
fn address(bytes: &[u8]) -> Option<String> {
    let kind = match bytes {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xFF, 0xD8, 0xFF, ..] => "jpeg",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        _ => return None,
    };
    (bytes.len() <= MOST_BYTES).then(|| format!("data:image/{kind};base64,{}", STANDARD.encode(bytes)))
}

const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}\
h2{margin-top:2.2rem}.all{display:grid;grid-template-columns:repeat(auto-fill,minmax(23rem,1fr));gap:1rem}\
figure{margin:0;padding:.7rem;border:1px solid #ddd;border-radius:6px}figure.bad{border-color:#c33}\
img{width:104px;height:104px;image-rendering:pixelated;background:#eee}.row{display:flex;gap:.5rem}\
.row div{font-size:12px;color:#666;text-align:center}.none{width:104px;height:104px;background:#f3f3f3}\
figcaption{margin-bottom:.4rem}details{font-size:12px;color:#555}b{font-weight:600}";

/// One self-contained page. `named` says who a miner is, where that is known.
#[must_use]
pub fn html(shots: &[Shot], named: &dyn Fn(&Hotkey) -> Option<String>) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\
         <title>Pictures</title><style>{STYLE}</style><h1>Pictures</h1><p>For every request: what the miner gave, what the \
         checker made of the same request, and the verdict. Red frames earned nothing.</p>"
    );
    let mut before = None;
    for shot in shots {
        let place = (&shot.task, shot.miner);
        if before != Some(place) {
            if before.is_some() {
                out.push_str("</div>");
            }
            let who = named(&shot.miner).unwrap_or_else(|| shot.miner.to_string());
            // Writing to a string does not fail.
            let _ =
                write!(out, "<h2>{} · {}</h2><div class=all>", escaped(shot.task.as_str()), escaped(&who));
            before = Some(place);
        }
        let bad = if shot.quality > 0.0 { "" } else { " class=bad" };
        let _ = write!(out, "<figure{bad}><figcaption>{}</figcaption><div class=row>", escaped(&shot.prompt));
        for (label, picture) in [("photograph", &shot.photo), ("miner", &shot.given), ("checker", &shot.made)]
        {
            match picture {
                // Base64 of our own encoder: nothing in it needs escaping.
                Some(address) => {
                    let _ = write!(out, "<div><img alt={label} src=\"{address}\"><br>{label}</div>");
                }
                None if label == "photograph" => {}
                None => {
                    let _ = write!(out, "<div><div class=none></div>no {label}'s</div>");
                }
            }
        }
        let _ = write!(
            out,
            "</div><p><b>{:.3}</b> {}</p><details><summary>why</summary>",
            shot.quality,
            escaped(&shot.verdict)
        );
        for (code, number) in &shot.reasons {
            let _ = write!(out, "{} {number:.4}<br>", escaped(code));
        }
        out.push_str("</details></figure>");
    }
    if before.is_some() {
        out.push_str("</div>");
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_pictures_and_nothing_that_a_stranger_wrote_as_markup() {
        let hostile = "<script>alert(1)</script>\"'";
        let shot = Shot {
            probe: "p".into(),
            miner: Hotkey::from_bytes([7; 32]),
            task: TaskName::new("image-world-scenes").unwrap(),
            prompt: hostile.into(),
            photo: None,
            given: address(b"\x89PNG\r\n\x1a\nrest"),
            made: address(b"<svg onload=alert(1)>"),
            verdict: format!("violation: {hostile}"),
            quality: 0.0,
            reasons: vec![(hostile.into(), 1.0)],
        };
        let page = html(&[shot], &|_| Some(hostile.into()));
        assert!(!page.contains("<script") && !page.contains("<svg"), "{page}");
        assert!(page.contains("data:image/png;base64,") && page.contains("class=bad"));
        assert!(page.contains("no checker's") && page.contains("&lt;script&gt;"));
    }
}
