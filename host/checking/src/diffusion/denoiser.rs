//! The denoiser: a UNet that is asked once a step, for one branch or for two together.

use std::path::Path;

use super::condition::{Condition, Conditioner};
use super::config::Config;
use super::graphs::{Array, Feed, Net};
use super::request::ImageRequest;
use crate::error::CheckingError;
use crate::runtime::Runtime;

/// Inputs that are fed where the graph has them.
const INPUTS: [&str; 6] =
    ["sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids", "timestep_cond"];

pub(crate) struct Denoiser {
    net: Net,
    /// Whether it is told the picture's size and the pooled text.
    sized: bool,
    /// The width of guidance's embedding, where guidance is told and not computed.
    guidance: Option<usize>,
}

impl Denoiser {
    pub(crate) fn open(
        model: &str,
        folder: &Path,
        conditioner: &Conditioner,
        channels: usize,
        runtime: &Runtime,
        intra_threads: usize,
    ) -> Result<Self, CheckingError> {
        let config = Config::read(&folder.join("config.json"))?;
        for field in ["class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type"] {
            config.absent(field)?;
        }
        for field in ["in_channels", "out_channels"] {
            let stated = config.count(field, None, 1, 1024)?;
            if stated != channels {
                let why = format!("is {stated}, and the autoencoder's latents have {channels} channels");
                return Err(config.refuse(field, why));
            }
        }
        let width = conditioner.width();
        let stated = config.count("cross_attention_dim", None, 1, 1 << 16)?;
        if stated != width {
            let why = format!("is {stated}, and the text encoder gives {width} values");
            return Err(config.refuse("cross_attention_dim", why));
        }
        let sized = match config.word("addition_embed_type", "")? {
            "" => false,
            "text_time" => true,
            other => {
                let why = format!("is '{other}'; served is text_time");
                return Err(config.refuse("addition_embed_type", why));
            }
        };
        let guidance = match config.get("time_cond_proj_dim") {
            Some(_) => Some(config.count("time_cond_proj_dim", None, 4, 1 << 16)?),
            None => None,
        };
        let net = Net::open(model, folder, runtime, intra_threads)?;
        net.only_inputs(&INPUTS)?;
        let latents = [-1, channels as i64, -1, -1];
        net.input("sample", &latents)?;
        net.input("encoder_hidden_states", &[-1, -1, width as i64])?;
        net.output("out_sample", &latents)?;
        net.scalar_input("timestep")?;
        if sized {
            let Some(pooled) = conditioner.pooled() else {
                return Err(config.refuse("addition_embed_type", "needs text_encoder_2, which is not there"));
            };
            net.input("text_embeds", &[-1, pooled as i64])?;
            net.input("time_ids", &[-1, 6])?;
        }
        if let Some(width) = guidance {
            net.input("timestep_cond", &[-1, width as i64])?;
        }
        for (name, fed) in
            [("text_embeds", sized), ("time_ids", sized), ("timestep_cond", guidance.is_some())]
        {
            if net.has_input(name) && !fed {
                return Err(net.wrong(format!("its input '{name}' is not one that config.json tells of")));
            }
        }
        Ok(Self { net, sized, guidance })
    }

    /// Whether guidance goes in as an input; then there is no second branch.
    pub(crate) fn embeds_guidance(&self) -> bool {
        self.guidance.is_some()
    }

    /// The model's answer to latents at a time, guidance applied.
    pub(crate) fn ask(
        &self,
        latents: &[f32],
        [channels, height, width]: [usize; 3],
        time: f64,
        condition: &Condition,
        request: &ImageRequest,
        guided: bool,
    ) -> Result<Vec<f32>, CheckingError> {
        let rows = if guided { 2 } else { 1 };
        let shape = [rows, channels, height, width];
        let sample = Array { shape: shape.to_vec(), values: latents.repeat(rows) };
        let mut feeds = vec![
            ("sample", Feed::Floats(sample)),
            ("timestep", Feed::Time { rows, value: time }),
            ("encoder_hidden_states", Feed::Floats(condition.states.clone())),
        ];
        if self.sized
            && let Some(pooled) = &condition.pooled
        {
            // The picture's size, where it was cropped, the size that is wanted: nothing is cropped here.
            let (high, wide) = (request.height as f32, request.width as f32);
            let values = [high, wide, 0.0, 0.0, high, wide].repeat(rows);
            feeds.push(("text_embeds", Feed::Floats(pooled.clone())));
            feeds.push(("time_ids", Feed::Floats(Array { shape: vec![rows, 6], values })));
        }
        if let Some(width) = self.guidance {
            let values = embedding(request.guidance - 1.0, width).repeat(rows);
            feeds.push(("timestep_cond", Feed::Floats(Array { shape: vec![rows, width], values })));
        }
        let [answer] = self.net.run(feeds, [("out_sample", &shape)])?;
        if !guided {
            return Ok(answer.values);
        }
        let (without, with) = answer.values.split_at(answer.values.len() / 2);
        let by = request.guidance as f32;
        Ok(without.iter().zip(with).map(|(without, with)| without + by * (with - without)).collect())
    }
}

/// Guidance as sines and cosines of a thousand times its value (Meng et al. 2023).
fn embedding(guidance: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let slope = (10_000.0_f64.ln() / (half - 1) as f64) as f32;
    let scaled = guidance as f32 * 1000.0;
    let angles: Vec<f32> = (0..half).map(|i| scaled * (i as f32 * -slope).exp()).collect();
    let mut values: Vec<f32> = angles.iter().map(|a| a.sin()).chain(angles.iter().map(|a| a.cos())).collect();
    values.resize(width, 0.0);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_is_embedded_as_diffusers_does() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/diffusion/large.json");
        let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let want: Vec<f32> = serde_json::from_value(all["guidance_embedding"].clone()).unwrap();
        let have = embedding(7.0, want.len());
        assert!(have.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5), "{have:?} {want:?}");
    }
}
