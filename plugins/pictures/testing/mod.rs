//! A checker for the tests of tasks of pictures: its pictures are small JSON documents, and everything that executors would
//! see in a real one is written in them. Not a module of the crate: tests include it by its path.
#![allow(dead_code, reason = "not every test needs all of it")]

use nineteen_sdk::{Answer, Check, Chunk, Cx, Ending, Evidence, Exchange, Request, Stop, Task, Verdict};
use serde_json::{Value, json};

/// A picture of one tone, in [0, 1]: how different two are is the difference of their tones.
pub(crate) fn picture(tone: f64) -> Value {
    json!({"tone": tone, "w": 64, "h": 64, "format": "png", "fault": null, "alpha": false, "trailing": 0,
        "most_common": 0.3, "unsafe": 0.01, "faces": [[0.9, 0.0]]})
}

/// The same with another field.
pub(crate) fn with(mut picture: Value, field: &str, value: Value) -> Value {
    picture[field] = value;
    picture
}

pub(crate) fn exchange(body: impl Into<Vec<u8>>) -> Exchange {
    let chunks = vec![Chunk { at_us: 900, data: body.into() }];
    Exchange { status: 200, headers: vec![], chunks, ended_us: 900, ending: Ending::Complete }
}

pub(crate) fn reply(picture: &Value) -> Exchange {
    let b64 = nineteen_pictures::base64(picture.to_string().as_bytes());
    exchange(json!({"created": 1, "model": "m", "data": [{"b64_json": b64, "flagged": false}]}).to_string())
}

pub(crate) fn flag() -> Exchange {
    exchange(json!({"created": 1, "data": [{"b64_json": null, "flagged": true}]}).to_string())
}

/// What is judged: by whom, with which models behind.
pub(crate) struct Bench<'a> {
    /// What the pipeline makes of a check.
    pub(crate) pipeline: &'a dyn Fn(&Value, &Check) -> Value,
    /// `calibration.json`, if the task has one.
    pub(crate) calibration: Option<&'a str>,
    /// Kinds of the checks that were asked, a list for each round.
    pub(crate) asked: Vec<Vec<String>>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(pipeline: &'a dyn Fn(&Value, &Check) -> Value) -> Self {
        Self { pipeline, calibration: None, asked: vec![] }
    }

    /// Rounds until there is a verdict.
    pub(crate) fn judge<T: Task>(
        &mut self,
        p: &T::Params,
        request: &Request,
        exchange: &Exchange,
    ) -> Result<Verdict, Stop> {
        let mut evidence: Vec<(Check, Evidence)> = vec![];
        for _ in 0..8 {
            let mut cx = Cx::new(evidence.clone());
            if let Some(calibration) = self.calibration {
                cx = cx.with_asset("calibration.json", calibration.as_bytes());
            }
            match T::score(p, &mut cx, request, exchange) {
                Err(Stop::Need(checks)) => {
                    assert!(
                        checks.iter().all(|c| evidence.iter().all(|(asked, _)| asked != c)),
                        "asked twice"
                    );
                    self.asked.push(checks.iter().map(|c| c.kind.clone()).collect());
                    evidence.extend(checks.into_iter().map(|c| (c.clone(), self.answer(&c))));
                }
                other => return other,
            }
        }
        panic!("it never ends: {:?}", self.asked)
    }

    /// Number of rounds and of checks.
    pub(crate) fn spent(&self) -> (usize, usize) {
        (self.asked.len(), self.asked.iter().map(Vec::len).sum())
    }

    fn answer(&self, check: &Check) -> Evidence {
        let params: Value = serde_json::from_str(&check.params).unwrap();
        assert_eq!(params["version"], 1);
        let pictures = || {
            check
                .blobs
                .iter()
                .map(|b| serde_json::from_slice::<Value>(b).ok().filter(|p| p["fault"].is_null()))
        };
        let whole: Option<Vec<Value>> = pictures().collect();
        let invalid = Evidence::Unavailable("invalid: a picture that cannot be decoded".into());
        let (said, blobs) = match check.kind.as_str() {
            "image.generate" => {
                let made = (self.pipeline)(&params, check).to_string().into_bytes();
                (
                    json!({"width": params["width"], "height": params["height"], "timesteps": [], "luma": []}),
                    vec![made],
                )
            }
            "image.features" => (features(check, params["warp"] == true), vec![]),
            "vision.classify" => {
                let Some(whole) = whole else { return invalid };
                let row = |p: &Value| json!([1.0 - p["unsafe"].as_f64().unwrap(), p["unsafe"]]);
                (
                    json!({"classes": ["safe", "forbidden"], "probabilities": whole.iter().map(row).collect::<Vec<_>>()}),
                    vec![],
                )
            }
            "vision.faces" => {
                let Some(whole) = whole else { return invalid };
                let threshold = params["threshold"].as_f64().unwrap();
                let found = |p: &Value| -> Vec<Value> {
                    let faces = p["faces"].as_array().unwrap().iter();
                    let seen = faces.filter(|f| f[0].as_f64().unwrap() >= threshold);
                    // The person is written into the landmarks, for the model that looks at them.
                    seen.map(|f| json!({"score": f[0], "box": [0, 0, 1, 1], "landmarks": vec![json!([f[1], 0.0]); 5]})).collect()
                };
                (json!({"faces": whole.iter().map(found).collect::<Vec<_>>()}), vec![])
            }
            "vision.embed" => {
                let Some(whole) = whole else { return invalid };
                let angle = |(i, p): (usize, &Value)| match &params["faces"] {
                    Value::Null => p["tone"].as_f64().unwrap(),
                    faces => faces[i][0][0].as_f64().unwrap(),
                };
                let rows = whole.iter().enumerate().map(angle).flat_map(|a| [a.cos() as f32, a.sin() as f32]);
                (json!({"dimension": 2}), vec![rows.flat_map(f32::to_le_bytes).collect()])
            }
            other => panic!("{other}"),
        };
        let mut said = said;
        said["version"] = json!(1);
        Evidence::Answered(Answer { params: said.to_string(), blobs })
    }
}

fn features(check: &Check, warp: bool) -> Value {
    let first = serde_json::from_slice::<Value>(&check.blobs[0]);
    let fault = match &first {
        Ok(p) if p["fault"].is_null() => None,
        Ok(p) => Some(p["fault"].clone()),
        Err(_) => Some(json!("not-an-image")),
    };
    if let Some(code) = fault {
        return json!({"image": null, "fault": {"code": code, "words": "it is bad"}, "compared": []});
    }
    let first = first.unwrap();
    let tone = |p: &Value| p["tone"].as_f64().unwrap();
    let compared = |blob: &Vec<u8>| {
        let other: Value = serde_json::from_slice(blob).unwrap();
        let apart = (tone(&first) - tone(&other)).abs();
        let mut said = json!({"perceptual": (apart * 64.0) as u32, "difference": (apart * 64.0) as u32, "average": 0, "colour": 0,
            "ssim": 1.0 - apart, "luma_error": apart, "error": apart, "largest": 1, "psnr": null, "gradients": 1.0 - apart,
            "lab": 100.0 * apart});
        if warp {
            said["warp"] =
                json!({"error": apart, "mirrored": false, "shift": [0, 0], "scale": 1.0, "turn": 0.0});
        }
        said
    };
    let image = json!({"format": first["format"], "width": first["w"], "height": first["h"], "bytes": 9, "alpha": first["alpha"],
        "frames": 1, "jpeg_quality": null, "trailing_bytes": first["trailing"], "sha256": "", "pixels_sha256": tone(&first).to_string(),
        "perceptual": "", "difference": "", "average": "", "colour": "", "mean": [0, 0, 0], "deviation": [0.1, 0.1, 0.1],
        "most_common": first["most_common"], "gradient": 0, "sharpness": 0, "blockiness": 1, "high_frequencies": 0});
    json!({"image": image, "fault": null, "compared": check.blobs[1..].iter().map(compared).collect::<Vec<_>>()})
}

/// The code of a violation.
pub(crate) fn code(result: Result<Verdict, Stop>) -> String {
    match result {
        Err(Stop::Violation(why)) => why.split(':').next().unwrap_or_default().to_owned(),
        other => panic!("no violation: {other:?}"),
    }
}

/// Defaults of a schema as parameters, and what has none.
pub(crate) fn defaults(properties: &Value) -> serde_json::Map<String, Value> {
    let mut all = serde_json::Map::new();
    for (name, property) in properties.as_object().unwrap() {
        if let Some(default) = property.get("default") {
            all.insert(name.clone(), default.clone());
        } else if let Some(inner) = property.get("properties") {
            let inner = defaults(inner);
            if !inner.is_empty() && property.get("required").is_none() {
                all.insert(name.clone(), Value::Object(inner));
            }
        }
    }
    all
}
