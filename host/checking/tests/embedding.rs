//! The embedding executor against what PyTorch computed for the same weights.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;

use common::{ALL, EMBED, fixture};
use nineteen_checking::{CheckingError, EmbeddingModel};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<u32>,
    embedding: Vec<f32>,
}

fn rows() -> Vec<Row> {
    serde_json::from_value(fixture("minilm.json")["rows"].clone()).unwrap()
}

fn model() -> EmbeddingModel {
    ALL.embedding(EMBED).unwrap()
}

fn far(a: &[f32], b: &[f32]) -> (f32, f64) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    (worst, dot(a, b) / (dot(a, a) * dot(b, b)).sqrt())
}

#[tokio::test]
async fn ids_and_rows_are_the_references_alone_and_in_one_batch() {
    let rows = rows();
    for row in &rows {
        assert_eq!(model().tokenize(&row.text).unwrap(), row.ids, "{:?}", row.text);
    }
    let together = model().embed(rows.iter().map(|r| r.text.clone()).collect()).await.unwrap();
    for (i, row) in rows.iter().enumerate() {
        let alone = model().embed(vec![row.text.clone()]).await.unwrap();
        for have in [&together.rows[i], &alone.rows[0]] {
            let (worst, cosine) = far(have, &row.embedding);
            assert!(worst <= 2e-5 && cosine >= 0.999_999, "{:?}: {worst} {cosine}", row.text);
        }
        assert_eq!(together.tokens[i] as usize, row.ids.len());
        assert_eq!(together.truncated[i], row.text.len() > 2_000);
    }
}

#[tokio::test]
async fn callers_whose_texts_are_batched_together_each_get_their_own() {
    let rows = rows();
    let model = model();
    let one = |i: usize| {
        let (model, text) = (model.clone(), rows[i].text.clone());
        async move { model.embed(vec![text; i % 3 + 1]).await.unwrap() }
    };
    let all = futures_util::future::join_all((0..rows.len()).map(one)).await;
    for (i, (embedded, row)) in all.iter().zip(&rows).enumerate() {
        assert_eq!(embedded.rows.len(), i % 3 + 1);
        for have in &embedded.rows {
            assert!(far(have, &row.embedding).0 <= 2e-5, "{:?}", row.text);
        }
    }
}

#[tokio::test]
async fn rows_keep_the_order_of_texts_whatever_their_lengths() {
    let texts: Vec<String> = (0..70).map(|i| format!("{}{i}", "long ".repeat((i * 37) % 90))).collect();
    let together = model().embed(texts.clone()).await.unwrap();
    for i in [0, 1, 33, 69] {
        let alone = model().embed(vec![texts[i].clone()]).await.unwrap();
        assert!(far(&together.rows[i], &alone.rows[0]).0 <= 2e-5);
    }
}

#[tokio::test]
async fn too_many_or_no_texts_are_refused() {
    for n in [0, 257] {
        let err = model().embed(vec!["x".into(); n]).await.unwrap_err();
        assert!(matches!(err, CheckingError::BadParameters(_)), "{err}");
    }
    let err = model().embed(vec!["x".repeat(5 << 20)]).await.unwrap_err();
    assert!(matches!(err, CheckingError::BadParameters(_)), "{err}");
}
