//! Vision models against what ONNX Runtime in Python says of the same pictures, prepared there a second time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that fails is meant to panic"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{fixture, runtime};
use nineteen_checking::{CheckingError, ExecutorConfig, Executors, Landmarks, Pixels, Sight, VisionModel};
use nineteen_domain::id::{Digest, ModelName};
use serde_json::Value;

const MODELS: [&str; 4] = ["vector", "classes", "faces", "identity"];

fn here() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/vision/models"))
}

fn start(models_dir: PathBuf, models: &[&str]) -> Result<Executors, CheckingError> {
    let models = models.iter().map(|m| ModelName::new(*m).unwrap().into()).collect();
    let config = ExecutorConfig { models_dir, threads_per_model: 1, intra_threads: 1, queue: 4, models };
    Executors::start(runtime(), config)
}

/// A folder of its own: what is noted beside a model must not be written into the repository.
fn copied(into: &Path, model: &str) -> PathBuf {
    let folder = into.join(model);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["model.onnx", "model.toml"] {
        std::fs::copy(here().join(model).join(file), folder.join(file)).unwrap();
    }
    folder
}

static ALL: LazyLock<(tempfile::TempDir, Executors)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    MODELS.iter().for_each(|m| drop(copied(dir.path(), m)));
    let executors = start(dir.path().to_path_buf(), &MODELS).unwrap_or_else(|e| panic!("{e}"));
    (dir, executors)
});

fn model(name: &str) -> VisionModel {
    ALL.1.vision(name).unwrap()
}

fn rows(name: &str) -> Vec<Value> {
    fixture("vision/expected.json")[name].as_array().unwrap().clone()
}

fn picture(row: &Value) -> Pixels {
    let p = &row["picture"];
    let side = |name: &str| p[name].as_u64().unwrap() as usize;
    let rgb = BASE64_STANDARD.decode(p["rgb"].as_str().unwrap()).unwrap();
    Pixels { width: side("width"), height: side("height"), rgb }
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn near(have: &[f32], wanted: &[f32], most: f32) {
    assert_eq!(have.len(), wanted.len());
    let off = have.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off <= most, "{off}: {have:?} instead of {wanted:?}");
}

fn vectors(sight: Sight) -> Vec<Vec<f32>> {
    let Sight::Vectors(rows) = sight else { panic!("{sight:?}") };
    rows
}

fn probabilities(sight: Sight) -> Vec<Vec<f32>> {
    let Sight::Classes(rows) = sight else { panic!("{sight:?}") };
    rows
}

#[tokio::test]
async fn vectors_are_the_references_alone_and_together() {
    let (model, rows) = (model("vector"), rows("vector"));
    assert_eq!((model.kind(), model.dimension(), model.classes().len()), ("vision.embed", 5, 0));
    let together = vectors(model.look(rows.iter().map(picture).collect(), None, 0.5).await.unwrap());
    for (row, have) in rows.iter().zip(&together) {
        let wanted: Vec<f32> = numbers(&row["vector"]);
        near(have, &wanted, 1e-5);
        let alone = vectors(model.look(vec![picture(row)], None, 0.5).await.unwrap());
        assert_eq!(&alone[0], have, "a picture's vector does not depend on its neighbours");
        let length = have.iter().map(|v| v * v).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-5);
    }
}

#[tokio::test]
async fn classes_are_the_references() {
    let (model, rows) = (model("classes"), rows("classes"));
    assert_eq!((model.kind(), model.dimension()), ("vision.classify", 0));
    assert_eq!(model.classes(), ["safe", "odd", "bad"]);
    let have = probabilities(model.look(rows.iter().map(picture).collect(), None, 0.5).await.unwrap());
    for (row, have) in rows.iter().zip(&have) {
        near(have, &numbers::<Vec<f32>>(&row["probabilities"]), 1e-5);
    }
}

#[tokio::test]
async fn faces_are_in_pixels_one_for_each_and_the_most_certain_first() {
    let (model, rows) = (model("faces"), rows("faces"));
    assert_eq!(model.kind(), "vision.faces");
    let sight = model.look(rows.iter().map(picture).collect(), None, 0.5).await.unwrap();
    let Sight::Faces(have) = sight else { panic!("{sight:?}") };
    for (row, have) in rows.iter().zip(&have) {
        let wanted = row["faces"].as_array().unwrap();
        assert_eq!(have.len(), wanted.len());
        for (have, wanted) in have.iter().zip(wanted) {
            let score = numbers::<f64>(&wanted["score"]);
            assert!((have.score - score).abs() < 1e-6);
            let flat = |l: &Landmarks| l.concat();
            let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(near(&have.place, &numbers::<Vec<f64>>(&wanted["box"])), "{have:?}");
            assert!(near(&flat(&have.landmarks), &flat(&numbers(&wanted["landmarks"]))), "{have:?}");
        }
    }
    let all = model.look(vec![picture(&rows[2])], None, 0.99).await.unwrap();
    assert_eq!(all, Sight::Faces(vec![vec![]]), "below the threshold");
}

#[tokio::test]
async fn a_face_is_brought_to_its_place_before_it_is_looked_at() {
    let (model, rows) = (model("identity"), rows("identity"));
    for row in &rows {
        let marks: Landmarks = numbers(&row["landmarks"]);
        let have = vectors(model.look(vec![picture(row)], Some(vec![marks]), 0.5).await.unwrap());
        // A place between two steps of grey may be rounded apart.
        near(&have[0], &numbers::<Vec<f32>>(&row["vector"]), 2e-3);
    }
    let one = vec![picture(&rows[0])];
    for marks in [[[4.0, 4.0]; 5], [[f64::NAN; 2]; 5], [[f64::INFINITY; 2]; 5]] {
        let err = model.look(one.clone(), Some(vec![marks]), 0.5).await.unwrap_err();
        assert!(matches!(err, CheckingError::Invalid(_)), "{err}");
    }
    let err = model.look(one.clone(), None, 0.5).await.unwrap_err();
    assert!(matches!(err, CheckingError::BadParameters(_)), "{err}");
    let marks: Landmarks = numbers(&rows[0]["landmarks"]);
    let err = model.look(one, Some(vec![marks; 2]), 0.5).await.unwrap_err();
    assert!(matches!(err, CheckingError::BadParameters(_)), "{err}");
}

#[tokio::test]
async fn pictures_that_cannot_be_looked_at_are_refused() {
    let model = model("vector");
    let grey = |n: usize| Pixels { width: 4, height: 4, rgb: vec![9; n] };
    let refused = |pictures: Vec<Pixels>, faces: Option<Vec<Landmarks>>| {
        let model = model.clone();
        async move {
            let err = model.look(pictures, faces, 0.5).await.unwrap_err();
            assert!(matches!(err, CheckingError::BadParameters(_)), "{err}");
        }
    };
    refused(vec![], None).await;
    refused(vec![grey(48); 65], None).await;
    refused(vec![grey(47)], None).await;
    refused(vec![Pixels { width: 0, height: 4, rgb: vec![] }], None).await;
    refused(vec![Pixels { width: 4, height: 0, rgb: vec![] }], None).await;
    refused(vec![grey(48)], Some(vec![[[1.0, 1.0]; 5]])).await;
    // One pixel is a picture.
    let one = Pixels { width: 1, height: 1, rgb: vec![1, 2, 3] };
    assert_eq!(vectors(model.look(vec![one], None, 0.5).await.unwrap())[0].len(), 5);
}

#[test]
fn a_manifest_that_does_not_fit_its_graph_is_refused_by_name() {
    let cases = [
        ("vector", "name = \"picture\"", "name = \"pixels\"", "no input 'pixels'"),
        ("vector", "width = 8", "width = 9", "has the shape"),
        ("vector", "layout = \"nchw\"", "layout = \"nhwc\"", "has the shape"),
        ("vector", "layout = \"nchw\"", "layout = \"chw\"", "chw"),
        ("vector", "dimension = 5", "dimension = 6", "5 values instead of 6"),
        ("vector", "dimension = 5", "dimension = 0", "output.dimension"),
        ("vector", "scale = 255.0", "scale = 0.0", "input.scale"),
        ("vector", "deviation = [0.5, 0.25, 0.2]", "deviation = [0.5, 0.0, 0.2]", "input.deviation"),
        ("vector", "order = \"rgb\"", "order = \"rgb\"\nflip = true", "flip"),
        ("vector", "name = \"vector\"\ndimension", "name = \"row\"\ndimension", "no output 'row'"),
        ("classes", "[\"safe\", \"odd\", \"bad\"]", "[\"safe\", \"odd\"]", "3 probabilities for 2 classes"),
        ("classes", "[\"safe\", \"odd\", \"bad\"]", "[\"safe\"]", "output.classes"),
        (
            "vector",
            "what = \"vector\"\nname = \"vector\"\ndimension = 5\nnormalise = true",
            "what = \"classes\"\nname = \"vector\"\nclasses = [\"a\", \"b\", \"c\", \"d\", \"e\"]",
            "no probabilities",
        ),
        ("classes", "resize = 12", "resize = 7", "input.resize"),
        ("faces", "boxes = \"boxes\"", "boxes = \"landmarks\"", "not of as many places"),
        ("identity", "template = [[5.0, 5.5], ", "template = [", "template"),
    ];
    for (model, from, to, said) in cases {
        let dir = tempfile::tempdir().unwrap();
        let manifest = copied(dir.path(), model).join("model.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        assert!(text.contains(from), "{model}: {from}");
        std::fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        let err = start(dir.path().to_path_buf(), &[model]).unwrap_err();
        let words = err.to_string();
        assert!(matches!(err, CheckingError::ModelFile { .. }), "{model} {to}: {words}");
        assert!(words.contains(said) && !words.contains('\n'), "{model} {to}: {words}");
    }
}

#[test]
fn a_cut_or_altered_graph_is_refused_even_where_its_digest_is_made_to_fit() {
    for change in ["cut", "altered", "swapped"] {
        let dir = tempfile::tempdir().unwrap();
        let folder = copied(dir.path(), "classes");
        let graph = folder.join("model.onnx");
        let whole = std::fs::read(&graph).unwrap();
        let other = match change {
            "cut" => whole[..whole.len() / 2].to_vec(),
            "altered" => whole.iter().enumerate().map(|(i, b)| if i < 40 { !b } else { *b }).collect(),
            _ => std::fs::read(here().join("faces/model.onnx")).unwrap(),
        };
        std::fs::write(&graph, &other).unwrap();
        let refused = || {
            let err = start(dir.path().to_path_buf(), &["classes"]).unwrap_err();
            assert!(matches!(err, CheckingError::ModelFile { .. }), "{change}: {err}");
            assert!(err.to_string().contains("model.onnx"), "{change}: {err}");
        };
        refused();
        let manifest = folder.join("model.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let (head, _) = text.split_once("[files]").unwrap();
        let entry = format!("{{ bytes = {}, sha256 = \"{}\" }}", other.len(), Digest::of(&other).hex());
        std::fs::write(&manifest, format!("{head}[files]\n\"model.onnx\" = {entry}\n")).unwrap();
        refused();
    }
}

/// As the fixtures' script makes it.
fn noise(width: usize, height: usize, mut state: u32) -> Pixels {
    let rgb = (0..width * height * 3)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    Pixels { width, height, rgb }
}

#[tokio::test]
async fn open_nsfw_says_what_it_says_in_python() {
    let executors = common::start(&["open-nsfw"]);
    let model = executors.vision("open-nsfw").unwrap();
    assert_eq!(model.classes(), ["safe", "nsfw"]);
    let wanted = fixture("vision/open_nsfw.json");
    let grey = Pixels { width: 256, height: 256, rgb: vec![128; 256 * 256 * 3] };
    for (name, picture) in [("grey", grey), ("noise", noise(256, 256, 1)), ("noise-640", noise(640, 640, 7))]
    {
        let have = probabilities(model.look(vec![picture], None, 0.5).await.unwrap());
        near(&have[0], &numbers::<Vec<f32>>(&wanted[name]), 1e-4);
    }
    executors.stop().await;
}
