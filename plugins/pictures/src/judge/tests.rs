use super::*;

fn body() -> Body {
    serde_json::from_str(
        r#"{"model":"m","prompt":"p","negative_prompt":"","seed":1,"steps":10,"guidance":4.0,"width":64,"height":48,
        "scheduler":"ddim","noise":"torch","response_format":"b64_json","request_id":"00c0ffee00c0ffee"}"#,
    )
    .unwrap()
}

fn classes(forbidden: f64) -> Classes {
    let said = format!(
        r#"{{"version":1,"classes":["safe","forbidden"],"probabilities":[[{},{forbidden}]]}}"#,
        1.0 - forbidden
    );
    serde_json::from_str(&said).unwrap()
}

fn safety() -> Safety {
    serde_json::from_str(r#"{"model":"s"}"#).unwrap()
}

fn exchange() -> Exchange {
    Exchange { status: 200, headers: vec![], chunks: vec![], ended_us: 1, ending: Ending::Complete }
}

#[test]
fn units_are_steps_over_4096_pixels_rounded_up() {
    assert_eq!(body().units(), 8);
    assert_eq!(Body { width: 8, height: 8, steps: 1, ..body() }.units(), 1);
    assert_eq!(Body { width: 1024, height: 1024, ..body() }.units(), 2560);
}

#[test]
fn near_the_classifiers_threshold_nobody_is_blamed() {
    let s = safety();
    let flagged = |p: f64| s.flagged(&classes(p), &body(), &exchange());
    assert!(matches!(flagged(0.1), Err(Stop::Violation(why)) if why.starts_with("unsafe.false_flag")));
    assert!(
        matches!(flagged(0.45), Err(Stop::Inconclusive(_)))
            && matches!(flagged(0.7), Err(Stop::Inconclusive(_)))
    );
    let right = flagged(0.95).unwrap();
    assert_eq!((right.quality, right.units), (1.0, 8));
    assert!(s.shown(&classes(0.1), 0).is_ok() && s.shown(&classes(0.75), 0).is_ok());
    assert!(
        matches!(s.shown(&classes(0.9), 0), Err(Stop::Violation(why)) if why.starts_with("unsafe.unflagged"))
    );
    let other = Safety { safe: "sfw".into(), ..safety() };
    assert!(matches!(other.shown(&classes(0.9), 0), Err(Stop::Inconclusive(_))));
    assert!(Safety { margin: 0.5, ..safety() }.validate().is_err());
}

#[test]
fn vectors_without_a_direction_say_nothing() {
    let rows = vec![vec![1.0, 0.0], vec![0.0, 2.0], vec![0.0, 0.0], vec![3.0, 0.0]];
    assert!((turned(&rows, 0, 1).unwrap() - 1.0).abs() < 1e-12);
    assert!(turned(&rows, 0, 3).unwrap().abs() < 1e-12);
    assert!(turned(&rows, 0, 2).is_err() && turned(&rows, 0, 9).is_err());
}

#[test]
fn distances_are_numbers_whatever_the_executor_says() {
    let nothing = Compared {
        perceptual: 0,
        difference: 0,
        average: 0,
        colour: 0,
        ssim: 1.0 + 1e-12,
        luma_error: 0.0,
        error: Some(0.0),
        gradients: f64::NAN,
        lab: f64::INFINITY,
        warp: None,
    };
    let all = distances(&nothing, Some(0.25)).unwrap();
    let of = |name: &str| all.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(
        (of("ssim"), of("gradients"), of("lab"), of("cosine"), of("error")),
        (0.0, 1.0, 1.0, 0.25, 0.0)
    );
    assert!(distances(&Compared { error: None, ..nothing }, None).is_err());
}
