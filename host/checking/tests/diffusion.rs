//! Images against what diffusers computed for the same folder: latents, pixels, times, refusals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;
#[path = "diffusion/fixtures.rs"]
mod fixtures;
#[path = "diffusion/folders.rs"]
mod folders;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use common::runtime;
use fixtures::{Archive, bytes, folder, singles};
use nineteen_checking::{CheckingError, Image, ImageRequest, Noise, Pipeline, Pixels};

static PIPELINE: LazyLock<Pipeline> =
    LazyLock::new(|| Pipeline::load(&folder("pipeline"), &runtime(), 1).unwrap_or_else(|e| panic!("{e}")));

/// A request that the fixture's pipeline takes.
fn request() -> ImageRequest {
    ImageRequest {
        prompt: "a red circle".into(),
        negative_prompt: Some(String::new()),
        seed: 7,
        steps: 3,
        guidance: 2.0,
        width: 32,
        height: 24,
        scheduler: None,
        noise: Noise::Torch,
        init: None,
        identity: None,
    }
}

fn generate(pipeline: &Pipeline, request: &ImageRequest) -> Result<Image, CheckingError> {
    pipeline.generate(request, &AtomicBool::new(false), &mut |_, _| {})
}

/// Largest difference of latents as a share of the largest latent, and of pixels in steps of 256.
fn far(have: &Image, latent: &[f32], pixels: &[u8]) -> (f32, u8) {
    assert_eq!(have.latent.len(), latent.len());
    assert_eq!(have.pixels.rgb.len(), pixels.len());
    let size = latent.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let off = have.latent.iter().zip(latent).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    let pixel = have.pixels.rgb.iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    (off / size, pixel)
}

#[test]
fn all_28_runs_are_diffusers() {
    let cases = fixtures::json("cases.json");
    let expected = Archive::open("expected.npz");
    let mut loaded: BTreeMap<String, Pipeline> = BTreeMap::new();
    let mut worst: BTreeMap<String, (f32, u8)> = BTreeMap::new();
    for case in cases.as_array().unwrap() {
        let name = case["scheduler"].as_str().unwrap();
        let pipeline = loaded.entry(name.to_owned()).or_insert_with(|| {
            let dir = tempfile::tempdir().unwrap();
            fixtures::copy(&folder("pipeline"), dir.path());
            fixtures::copy(&folder("schedulers").join(name), &dir.path().join("scheduler"));
            Pipeline::load(dir.path(), &runtime(), 1).unwrap()
        });
        let prompt = case["prompt"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["prompt_ids"].clone()).unwrap();
        assert_eq!(pipeline.prompt_ids(prompt).unwrap(), ids, "{prompt}");
        let image = generate(
            pipeline,
            &ImageRequest {
                prompt: prompt.into(),
                negative_prompt: Some(case["negative"].as_str().unwrap().into()),
                seed: case["seed"].as_u64().unwrap(),
                steps: case["steps"].as_u64().unwrap() as usize,
                guidance: case["guidance"].as_f64().unwrap(),
                width: 32,
                height: 32,
                ..request()
            },
        )
        .unwrap();
        let key = case["key"].as_str().unwrap();
        let times: Vec<f64> = serde_json::from_value(case["timesteps"].clone()).unwrap();
        assert_eq!(image.timesteps, times, "{key} {name}");
        assert_eq!(image.latent_shape, [4, 16, 16]);
        let latent = expected.singles(&format!("{key}.latent.npy"));
        let (latents, pixels) = far(&image, &latent, &expected.data(&format!("{key}.image.npy")));
        let most = worst.entry(name.to_owned()).or_default();
        *most = (most.0.max(latents), most.1.max(pixels));
        assert!(latents <= 1e-5 && pixels <= 1, "{key} {name}: {latents:e} {pixels}");
    }
    assert_eq!(cases.as_array().unwrap().len(), 28);
    println!("{worst:#?}");
}

#[test]
fn pictures_to_begin_with_and_other_spacings_are_diffusers() {
    let all = fixtures::json("image_to_image.json");
    let picture = Pixels { width: 40, height: 24, rgb: bytes(&all["picture"]) };
    for (i, case) in all["cases"].as_array().unwrap().iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        fixtures::copy(&folder("pipeline"), dir.path());
        let path = dir.path().join("scheduler/scheduler_config.json");
        std::fs::write(path, case["config"].as_str().unwrap()).unwrap();
        let pipeline = Pipeline::load(dir.path(), &runtime(), 1).unwrap_or_else(|e| panic!("{i}: {e}"));
        let name = case["scheduler"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["prompt_ids"].clone()).unwrap();
        assert_eq!(pipeline.prompt_ids(case["prompt"].as_str().unwrap()).unwrap(), ids);
        let init = case["from_picture"]
            .as_bool()
            .unwrap()
            .then(|| (picture.clone(), case["strength"].as_f64().unwrap()));
        let image = generate(
            &pipeline,
            &ImageRequest {
                prompt: case["prompt"].as_str().unwrap().into(),
                negative_prompt: Some(case["negative"].as_str().unwrap().into()),
                seed: case["seed"].as_u64().unwrap(),
                steps: case["steps"].as_u64().unwrap() as usize,
                guidance: case["guidance"].as_f64().unwrap(),
                width: 40,
                height: 24,
                init,
                ..request()
            },
        )
        .unwrap_or_else(|e| panic!("{i} {name}: {e}"));
        let times: Vec<f64> = serde_json::from_value(case["timesteps"].clone()).unwrap();
        let close = image.timesteps.iter().zip(&times).all(|(a, b)| (a - b).abs() <= 1e-4);
        assert!(image.timesteps.len() == times.len() && close, "{i} {name}: {:?} {times:?}", image.timesteps);
        let (latents, pixels) = far(&image, &singles(&bytes(&case["latent"])), &bytes(&case["image"]));
        println!("{i} {name}: {latents:e} {pixels}");
        assert!(latents <= 1e-5 && pixels <= 1, "{i} {name}: {latents:e} {pixels}");
    }
}

#[test]
fn pipelines_of_xl_shape_are_diffusers() {
    let all = fixtures::json("large.json");
    let pipeline = Pipeline::load(&folder("large"), &runtime(), 1).unwrap_or_else(|e| panic!("{e}"));
    for case in all["cases"].as_array().unwrap() {
        let init = case["strength"]
            .as_f64()
            .map(|strength| (Pixels { width: 40, height: 24, rgb: bytes(&case["picture"]) }, strength));
        let image = generate(
            &pipeline,
            &ImageRequest {
                negative_prompt: case["negative"].as_str().map(Into::into),
                seed: 5,
                steps: case["steps"].as_u64().unwrap_or(4) as usize,
                init,
                guidance: case["guidance"].as_f64().unwrap(),
                width: 40,
                height: 24,
                scheduler: case["scheduler"].as_str().map(Into::into),
                ..request()
            },
        )
        .unwrap();
        let times: Vec<f64> = serde_json::from_value(case["timesteps"].clone()).unwrap();
        assert_eq!(image.timesteps, times);
        let (latents, pixels) = far(&image, &singles(&bytes(&case["latent"])), &bytes(&case["image"]));
        println!("{} {}: {latents:e} {pixels}", case["scheduler"], case["guidance"]);
        assert!(latents <= 1e-5 && pixels <= 1, "{} {latents:e} {pixels}", case["scheduler"]);
    }
}

#[test]
fn a_graph_in_half_precision_gives_the_picture_within_its_rounding() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::copy(&folder("large"), dir.path());
    let whole = generate(&Pipeline::load(dir.path(), &runtime(), 1).unwrap(), &request()).unwrap();
    fixtures::copy(&folder("half"), &dir.path().join("vae_decoder"));
    let half = generate(&Pipeline::load(dir.path(), &runtime(), 1).unwrap(), &request()).unwrap();
    assert_eq!(whole.latent, half.latent);
    let (_, pixels) = far(&half, &whole.latent, &whole.pixels.rgb);
    assert!(pixels <= 2, "{pixels}");
    assert_ne!(whole.pixels, half.pixels);
}

#[test]
fn hard_prompts_become_the_ids_of_transformers_from_parts_and_from_one_file() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::copy(&folder("pipeline"), dir.path());
    std::fs::remove_file(dir.path().join("tokenizer/vocab.json")).unwrap();
    fixtures::copy(&folder("tokenizer_file"), &dir.path().join("tokenizer"));
    let of_file = Pipeline::load(dir.path(), &runtime(), 1).unwrap();
    for row in fixtures::json("prompts.json").as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        for (pipeline, field) in [(&*PIPELINE, "ids"), (&of_file, "of_file")] {
            let mut want: Vec<u32> = serde_json::from_value(row[field].clone()).unwrap();
            want.resize(77, 513);
            assert_eq!(pipeline.prompt_ids(text).unwrap(), want, "{field} of {text:?}");
        }
    }
}

#[test]
fn an_identity_changes_the_image_and_none_is_the_zero_vector() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::copy(&folder("pipeline"), dir.path());
    fixtures::copy(&folder("image_projection"), &dir.path().join("image_projection"));
    let pipeline = Pipeline::load(dir.path(), &runtime(), 1).unwrap();
    let with = |identity: Option<Vec<f32>>, guidance| {
        generate(&pipeline, &ImageRequest { identity, guidance, ..request() }).map(|image| image.latent)
    };
    for guidance in [1.0, 3.0] {
        let none = with(None, guidance).unwrap();
        assert_eq!(none, with(Some(vec![0.0; 8]), guidance).unwrap());
        assert_ne!(none, with(Some(vec![1.0; 8]), guidance).unwrap());
    }
    for wrong in [vec![1.0; 7], vec![f32::NAN; 8]] {
        assert!(matches!(with(Some(wrong), 1.0).unwrap_err(), CheckingError::BadParameters(_)));
    }
}

#[test]
fn a_request_can_name_a_scheduler_and_gets_it_with_the_folders_values() {
    let dir = tempfile::tempdir().unwrap();
    fixtures::copy(&folder("pipeline"), dir.path());
    fixtures::copy(&folder("schedulers/dpmpp-2m-karras"), &dir.path().join("scheduler"));
    let karras = Pipeline::load(dir.path(), &runtime(), 1).unwrap();
    let named = |pipeline: &Pipeline, name: Option<&str>| {
        let request = ImageRequest { scheduler: name.map(Into::into), ..request() };
        generate(pipeline, &request).unwrap().timesteps
    };
    assert_ne!(named(&karras, Some("dpmpp-2m")), named(&karras, None));
    assert_eq!(named(&karras, Some("dpmpp-2m-karras")), named(&karras, None));
    // The folder's scheduler is DDIM with leading times, and an Euler made of it has those times too.
    assert_eq!(named(&PIPELINE, Some("euler")), [667.0, 334.0, 1.0]);
    assert_eq!(named(&PIPELINE, Some("lcm")), [999.0, 679.0, 339.0]);
    let err =
        generate(&PIPELINE, &ImageRequest { scheduler: Some("unipc".into()), ..request() }).unwrap_err();
    assert!(matches!(&err, CheckingError::BadParameters(why) if why.contains("dpmpp-2m")), "{err}");
}

#[test]
fn the_same_request_gives_the_same_bits_alone_and_on_two_threads() {
    let request =
        ImageRequest { width: 24, height: 40, scheduler: Some("euler-ancestral".into()), ..request() };
    let first = generate(&PIPELINE, &request).unwrap();
    assert_eq!((first.pixels.width, first.pixels.height, first.latent_shape), (24, 40, [4, 20, 12]));
    let other = ImageRequest { seed: 8, ..request.clone() };
    let other_alone = generate(&PIPELINE, &other).unwrap();
    assert_ne!(first, other_alone);
    std::thread::scope(|scope| {
        let a = scope.spawn(|| generate(&PIPELINE, &request).unwrap());
        let b = scope.spawn(|| generate(&PIPELINE, &other).unwrap());
        assert_eq!((a.join().unwrap(), b.join().unwrap()), (first.clone(), other_alone));
    });
    let philox = ImageRequest { noise: Noise::Philox, ..request };
    assert_ne!(generate(&PIPELINE, &philox).unwrap(), first);
    assert_eq!(generate(&PIPELINE, &philox).unwrap(), generate(&PIPELINE, &philox).unwrap());
}

#[test]
fn cancelling_ends_a_run_before_its_next_step_and_progress_counts_up() {
    let (cancel, mut seen) = (AtomicBool::new(false), Vec::new());
    let request = ImageRequest { steps: 5, ..request() };
    let ended = PIPELINE.generate(&request, &cancel, &mut |step, of| {
        seen.push((step, of));
        cancel.store(step == 2, Ordering::Relaxed);
    });
    assert_eq!(ended.unwrap_err(), CheckingError::Stopped);
    assert_eq!(seen, [(1, 5), (2, 5)]);
}

#[test]
fn guidance_of_one_or_less_asks_one_branch() {
    let at = |guidance, negative: &str| {
        let request = ImageRequest { guidance, negative_prompt: Some(negative.into()), ..request() };
        generate(&PIPELINE, &request).unwrap().latent
    };
    assert_eq!(at(1.0, "blurry"), at(0.0, "sharp"));
    assert_ne!(at(1.5, "blurry"), at(1.5, "sharp"));
}

#[test]
fn requests_out_of_bounds_are_refused_in_a_line() {
    let pixels = |width, height| Pixels { width, height, rgb: vec![9; 3 * width * height] };
    let bad = [
        ("steps", ImageRequest { steps: 0, ..request() }),
        ("steps", ImageRequest { steps: 151, ..request() }),
        ("guidance", ImageRequest { guidance: f64::NAN, ..request() }),
        ("guidance", ImageRequest { guidance: 50.1, ..request() }),
        ("width", ImageRequest { width: 33, ..request() }),
        ("height", ImageRequest { height: 0, ..request() }),
        ("height", ImageRequest { height: 2050, ..request() }),
        ("picture", ImageRequest { init: Some((pixels(24, 32), 0.5)), ..request() }),
        ("strength", ImageRequest { init: Some((pixels(32, 24), 0.0)), ..request() }),
        ("strength", ImageRequest { init: Some((pixels(32, 24), 0.2)), ..request() }),
        ("identity", ImageRequest { identity: Some(vec![0.0; 8]), ..request() }),
        ("prompt", ImageRequest { prompt: "x".repeat(20_000), ..request() }),
        ("steps", ImageRequest { steps: 60, scheduler: Some("lcm".into()), ..request() }),
    ];
    for (word, request) in bad {
        let err = generate(&PIPELINE, &request).unwrap_err();
        let text = err.to_string();
        assert!(matches!(err, CheckingError::BadParameters(_)) && text.contains(word), "{word}: {text}");
        assert!(!text.contains('\n'));
    }
}
