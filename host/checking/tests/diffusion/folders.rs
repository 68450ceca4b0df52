//! Folders with one fault each: every refusal is one line that names the file and the field.

use std::path::Path;

use nineteen_checking::{CheckingError, Pipeline};
use serde_json::{Value, json};

use super::common::runtime;
use super::fixtures::{copy, folder};

/// Loads the fixture's pipeline after `spoil` has been at its folder.
fn spoilt(spoil: impl FnOnce(&Path)) -> Result<Pipeline, CheckingError> {
    let dir = tempfile::tempdir().unwrap();
    copy(&folder("pipeline"), dir.path());
    spoil(dir.path());
    Pipeline::load(dir.path(), &runtime(), 1)
}

fn refusal(words: &[&str], spoil: impl FnOnce(&Path)) {
    let err = spoilt(spoil).expect_err(&format!("{words:?}"));
    let text = err.to_string();
    assert_eq!(err.code(), "checking.model.file", "{text}");
    assert!(!text.contains('\n'), "{text}");
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

fn set(path: &Path, field: &str, value: Value) {
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_missing_file_is_named() {
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.onnx",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "unet/config.json",
        "unet/model.onnx",
        "vae_decoder/config.json",
        "vae_decoder/model.onnx",
        "vae_encoder/model.onnx",
    ] {
        refusal(&[file, "missing"], |dir| std::fs::remove_file(dir.join(file)).unwrap());
    }
}

#[test]
fn a_graph_that_is_cut_or_something_else_is_named() {
    for part in ["text_encoder", "unet", "vae_decoder", "vae_encoder"] {
        for keep in [0, 1, 1000, -1] {
            let file = format!("{part}/model.onnx");
            refusal(&[&file], |dir| {
                let bytes = std::fs::read(dir.join(&file)).unwrap();
                let keep = usize::try_from(keep).unwrap_or(bytes.len() - 1);
                std::fs::write(dir.join(&file), &bytes[..keep]).unwrap();
            });
        }
    }
    refusal(&["unet/model.onnx"], |dir| std::fs::write(dir.join("unet/model.onnx"), "{}").unwrap());
    // A whole graph, of another part.
    refusal(&["unet/model.onnx", "'latent_sample'"], |dir| {
        std::fs::copy(dir.join("vae_decoder/model.onnx"), dir.join("unet/model.onnx")).unwrap();
    });
}

#[test]
fn invalid_json_is_named() {
    for file in ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"] {
        for text in ["{", "[]", "{\"a\": 1e}"] {
            refusal(&[file], |dir| std::fs::write(dir.join(file), text).unwrap());
        }
    }
    refusal(&["tokenizer/vocab.json"], |dir| std::fs::write(dir.join("tokenizer/vocab.json"), "{").unwrap());
}

#[test]
fn a_vocabulary_without_special_tokens_is_named() {
    refusal(&["vocab.json", "<|startoftext|>"], |dir| {
        let path = dir.join("tokenizer/vocab.json");
        let mut vocab: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        vocab.as_object_mut().unwrap().remove("<|startoftext|>");
        std::fs::write(path, vocab.to_string()).unwrap();
    });
    refusal(&["merges.txt"], |dir| {
        std::fs::write(dir.join("tokenizer/merges.txt"), "#version: 0.2\nab cd\n").unwrap();
    });
}

#[test]
fn a_tensor_of_another_shape_is_named_with_its_field() {
    let cases = [
        ("unet/config.json", "in_channels", json!(9)),
        ("unet/config.json", "cross_attention_dim", json!(768)),
        ("unet/config.json", "addition_embed_type", json!("image")),
        ("unet/config.json", "addition_embed_type", json!("text_time")),
        ("unet/config.json", "class_embed_type", json!("timestep")),
        ("unet/config.json", "encoder_hid_dim_type", json!("ip_image_proj")),
        ("vae_decoder/config.json", "shift_factor", json!(0.1)),
        ("vae_decoder/config.json", "scaling_factor", json!(0.0)),
        ("vae_decoder/config.json", "block_out_channels", json!([])),
        ("vae_encoder/config.json", "scaling_factor", json!(0.5)),
        ("text_encoder/config.json", "vocab_size", json!(100)),
        ("text_encoder/config.json", "max_position_embeddings", json!(32)),
        ("tokenizer/tokenizer_config.json", "model_max_length", json!(1)),
        ("model_index.json", "_class_name", json!("FluxPipeline")),
    ];
    for (file, field, value) in cases {
        refusal(&[file, &format!("'{field}'")], |dir| set(&dir.join(file), field, value));
    }
    refusal(&["text_encoder/model.onnx", "'last_hidden_state'", "64"], |dir| {
        set(&dir.join("text_encoder/config.json"), "hidden_size", json!(64));
    });
    refusal(&["vae_decoder/model.onnx", "'latent_sample'", "[?, 16, ?, ?]"], |dir| {
        set(&dir.join("vae_decoder/config.json"), "latent_channels", json!(16));
    });
    refusal(&["transformer"], |dir| std::fs::create_dir(dir.join("transformer")).unwrap());
}

#[test]
fn every_field_of_the_scheduler_is_honoured_or_refused_by_name() {
    let refused = [
        ("ddim", "_class_name", json!("PNDMScheduler")),
        ("ddim", "a_new_field", json!(1)),
        ("ddim", "thresholding", json!(true)),
        ("ddim", "beta_schedule", json!("sigmoid")),
        ("ddim", "beta_start", json!("low")),
        ("ddim", "beta_end", json!(2)),
        ("ddim", "num_train_timesteps", json!(-1)),
        ("ddim", "prediction_type", json!("flow_prediction")),
        ("ddim", "timestep_spacing", json!("random")),
        ("ddim", "steps_offset", json!(1000)),
        ("ddim", "trained_betas", json!([0.1, 0.2])),
        ("ddim", "rescale_betas_zero_snr", json!("yes")),
        ("ddim", "clip_sample", json!(1)),
        ("ddim", "clip_sample_range", json!(0)),
        ("ddim", "set_alpha_to_one", json!(0)),
        ("euler", "use_exponential_sigmas", json!(true)),
        ("euler", "use_beta_sigmas", json!(true)),
        ("euler", "interpolation_type", json!("log_linear")),
        ("euler", "timestep_type", json!("continuous")),
        ("euler", "final_sigmas_type", json!("one")),
        ("euler-ancestral", "prediction_type", json!("sample")),
        ("dpmpp-2m", "algorithm_type", json!("sde-dpmsolver++")),
        ("dpmpp-2m", "solver_order", json!(3)),
        ("dpmpp-2m", "solver_type", json!("bh1")),
        ("dpmpp-2m", "use_lu_lambdas", json!(true)),
        ("dpmpp-2m", "use_flow_sigmas", json!(true)),
        ("dpmpp-2m", "variance_type", json!("learned")),
        ("lcm", "original_inference_steps", json!(0)),
        ("lcm", "timestep_scaling", json!([])),
    ];
    for (name, field, value) in refused {
        refusal(&["scheduler/scheduler_config.json", &format!("'{field}'")], |dir| {
            copy(&folder("schedulers").join(name), &dir.join("scheduler"));
            let path = dir.join("scheduler/scheduler_config.json");
            let text = std::fs::read_to_string(&path).unwrap().replace("-Infinity", "null");
            std::fs::write(&path, text).unwrap();
            set(&path, field, value);
        });
    }
    let taken = [
        ("_anything", json!("at all")),
        ("skip_prk_steps", json!(true)),
        ("trained_betas", json!(vec![0.01; 1000])),
        ("rescale_betas_zero_snr", json!(true)),
    ];
    for (field, value) in taken {
        spoilt(|dir| set(&dir.join("scheduler/scheduler_config.json"), field, value)).unwrap();
    }
}

#[test]
fn weights_beside_a_graph_are_read_and_named_when_they_are_cut_or_missing() {
    let beside = |dir: &Path| copy(&folder("image_projection"), &dir.join("image_projection"));
    spoilt(beside).unwrap();
    refusal(&["image_projection/model.onnx_data", "missing"], |dir| {
        beside(dir);
        std::fs::remove_file(dir.join("image_projection/model.onnx_data")).unwrap();
    });
    refusal(&["image_projection/model.onnx_data", "bytes"], |dir| {
        beside(dir);
        let path = dir.join("image_projection/model.onnx_data");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    });
    refusal(&["image_projection/model.onnx", "outside the folder"], |dir| {
        beside(dir);
        let path = dir.join("image_projection/model.onnx");
        let mut bytes = std::fs::read(&path).unwrap();
        let name = b"model.onnx_data";
        while let Some(at) = bytes.windows(name.len()).position(|w| w == name) {
            bytes[at..at + name.len()].copy_from_slice(b"../../aaaa.data");
        }
        std::fs::write(path, bytes).unwrap();
    });
    refusal(&["image_projection/model.onnx", "'image_prompt_embeds'"], |dir| {
        let (from, to) = (folder("image_projection"), dir.join("image_projection"));
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(from.join("model.onnx_data"), to.join("model.onnx_data")).unwrap();
        let mut bytes = std::fs::read(from.join("model.onnx")).unwrap();
        let name = b"image_prompt_embeds";
        while let Some(at) = bytes.windows(name.len()).position(|w| w == name) {
            bytes[at..at + name.len()].copy_from_slice(b"image_prompt_states");
        }
        std::fs::write(to.join("model.onnx"), bytes).unwrap();
    });
    refusal(&["text_encoder_2"], |dir| {
        copy(&folder("large"), dir);
        std::fs::remove_file(dir.join("text_encoder_2/model.onnx")).unwrap();
    });
    refusal(&["text_encoder/model.onnx", "'hidden_states.1'"], |dir| {
        let text_encoder = dir.join("text_encoder");
        std::fs::create_dir_all(&text_encoder).unwrap();
        let plain = std::fs::read(text_encoder.join("model.onnx")).unwrap();
        copy(&folder("large"), dir);
        std::fs::write(text_encoder.join("model.onnx"), plain).unwrap();
        set(&text_encoder.join("config.json"), "num_hidden_layers", json!(2));
        set(&dir.join("tokenizer/tokenizer_config.json"), "model_max_length", json!(20));
    });
}
