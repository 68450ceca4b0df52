//! The autoencoder: pictures to latents and back.

use std::path::Path;

use super::config::Config;
use super::graphs::{Array, Feed, Net};
use super::noise::Generator;
use super::request::Pixels;
use crate::error::CheckingError;
use crate::runtime::Runtime;

/// Both halves; pipelines that only make pictures have no encoder.
pub(crate) struct Autoencoder {
    decoder: Net,
    encoder: Option<Net>,
    /// What latents are multiplied by for the denoiser.
    scale: f32,
    /// Channels of the latents.
    pub(crate) channels: usize,
    /// What a side is divided by.
    pub(crate) factor: usize,
}

/// What both `config.json` have to agree on.
fn numbers(config: &Config) -> Result<(f64, usize, usize), CheckingError> {
    for field in ["shift_factor", "latents_mean", "latents_std"] {
        config.absent(field)?;
    }
    let scale = config.finite("scaling_factor", 0.18215)?;
    if scale <= 0.0 {
        return Err(config.refuse("scaling_factor", "is not above 0"));
    }
    let channels = config.count("latent_channels", Some(4), 1, 256)?;
    let blocks = match config.get("block_out_channels") {
        None => return Err(config.refuse("block_out_channels", "is missing")),
        Some(value) => value.as_array().map_or(0, Vec::len),
    };
    if !(1..=8).contains(&blocks) {
        return Err(config.refuse("block_out_channels", "is not a list of 1 to 8 numbers"));
    }
    // Every block but the last halves the picture.
    Ok((scale, channels, 1 << (blocks - 1)))
}

impl Autoencoder {
    pub(crate) fn open(
        model: &str,
        root: &Path,
        runtime: &Runtime,
        intra_threads: usize,
    ) -> Result<Self, CheckingError> {
        let folder = root.join("vae_decoder");
        let config = Config::read(&folder.join("config.json"))?;
        let (scale, channels, factor) = numbers(&config)?;
        let decoder = Net::open(model, &folder, runtime, intra_threads)?;
        decoder.only_inputs(&["latent_sample"])?;
        decoder.input("latent_sample", &[-1, channels as i64, -1, -1])?;
        decoder.output("sample", &[-1, 3, -1, -1])?;
        let folder = root.join("vae_encoder");
        let encoder = if folder.is_dir() {
            let config = Config::read(&folder.join("config.json"))?;
            if numbers(&config)? != (scale, channels, factor) {
                let why = "and what belongs to it is not that of the decoder";
                return Err(config.refuse("scaling_factor", why));
            }
            let encoder = Net::open(model, &folder, runtime, intra_threads)?;
            encoder.only_inputs(&["sample"])?;
            encoder.input("sample", &[-1, 3, -1, -1])?;
            if encoder.has_output("latent_parameters") {
                encoder.output("latent_parameters", &[-1, 2 * channels as i64, -1, -1])?;
            } else {
                encoder.output("latent_sample", &[-1, channels as i64, -1, -1])?;
            }
            Some(encoder)
        } else {
            None
        };
        Ok(Self { decoder, encoder, scale: scale as f32, channels, factor })
    }

    /// Channels, rows and columns of the latents of a picture.
    pub(crate) fn latent_shape(&self, width: usize, height: usize) -> [usize; 3] {
        [self.channels, height / self.factor, width / self.factor]
    }

    /// A picture's latents as the denoiser reads them: a sample of the encoder's distribution, scaled.
    pub(crate) fn encode(
        &self,
        pixels: &Pixels,
        generator: &mut Generator,
    ) -> Result<Vec<f32>, CheckingError> {
        let Some(encoder) = &self.encoder else {
            let why = "a picture to begin with, and this pipeline has no vae_encoder".into();
            return Err(CheckingError::BadParameters(why));
        };
        let (width, height) = (pixels.width, pixels.height);
        let plane = |channel: usize| {
            let values = pixels.rgb.iter().skip(channel).step_by(3);
            values.map(|value| 2.0 * (f32::from(*value) / 255.0) - 1.0)
        };
        let values = (0..3).flat_map(plane).collect();
        let feed = Feed::Floats(Array { shape: vec![1, 3, height, width], values });
        let [channels, rows, columns] = self.latent_shape(width, height);
        let latents = if encoder.has_output("latent_parameters") {
            let shape = [1, 2 * channels, rows, columns];
            let [parameters] = encoder.run(vec![("sample", feed)], [("latent_parameters", &shape)])?;
            let (mean, log_variance) = parameters.values.split_at(parameters.values.len() / 2);
            let noise = generator.normal(mean.len());
            let deviation = log_variance.iter().map(|v| (0.5 * v.clamp(-30.0, 20.0)).exp());
            mean.iter().zip(deviation).zip(noise).map(|((mean, by), noise)| mean + by * noise).collect()
        } else {
            let shape = [1, channels, rows, columns];
            let [latents] = encoder.run(vec![("sample", feed)], [("latent_sample", &shape)])?;
            latents.values
        };
        Ok(latents.into_iter().map(|v| self.scale * v).collect())
    }

    /// The picture of latents: from −1…1 to 0…255, halves rounded to even.
    pub(crate) fn decode(
        &self,
        latents: &[f32],
        [channels, rows, columns]: [usize; 3],
    ) -> Result<Pixels, CheckingError> {
        let (height, width) = (rows * self.factor, columns * self.factor);
        let values = latents.iter().map(|v| v / self.scale).collect();
        let feed = Feed::Floats(Array { shape: vec![1, channels, rows, columns], values });
        let shape = [1, 3, height, width];
        let [picture] = self.decoder.run(vec![("latent_sample", feed)], [("sample", &shape)])?;
        let mut rgb = vec![0; 3 * width * height];
        for (channel, plane) in picture.values.chunks_exact((width * height).max(1)).enumerate() {
            for (to, value) in rgb.iter_mut().skip(channel).step_by(3).zip(plane) {
                *to = ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
            }
        }
        if picture.values.iter().all(|v| v.is_finite()) {
            Ok(Pixels { width, height, rgb })
        } else {
            Err(self.decoder.not_finite())
        }
    }
}
