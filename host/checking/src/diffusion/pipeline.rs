//! A pipeline: its folder opened and found consistent, and a run through it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::autoencoder::Autoencoder;
use super::condition::Conditioner;
use super::config::{Config, wrong};
use super::denoiser::Denoiser;
use super::noise::Generator;
use super::request::{Image, ImageRequest};
use super::schedule::Spec;
use crate::error::CheckingError;
use crate::runtime::Runtime;

/// The pipelines that are served, by the name of their class without its prefix, and whether they are of XL's shape.
const CLASSES: [(&str, bool); 6] = [
    ("StableDiffusionPipeline", false),
    ("StableDiffusionImg2ImgPipeline", false),
    ("LatentConsistencyModelPipeline", false),
    ("LatentConsistencyModelImg2ImgPipeline", false),
    ("StableDiffusionXLPipeline", true),
    ("StableDiffusionXLImg2ImgPipeline", true),
];

/// An image pipeline that is loaded. Runs share its graphs: callers on several threads take turns, pass by pass.
pub struct Pipeline {
    model: String,
    conditioner: Conditioner,
    denoiser: Denoiser,
    autoencoder: Autoencoder,
    schedule: Spec,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Opens a folder in the layout of Hugging Face's ONNX pipelines: `model_index.json`, `tokenizer`,
    /// `text_encoder`, `unet`, `vae_decoder`, `scheduler`; for XL `tokenizer_2` and `text_encoder_2`; for pictures to begin with
    /// `vae_encoder`; for identities `image_projection` (`image_embeds` `[rows, dimension]` to `image_prompt_embeds`
    /// `[rows, tokens, width]`).
    ///
    /// # Errors
    /// [`CheckingError::ModelFile`] with the file and, where it is one, the field: a file that is missing or cut,
    /// a class or field of the scheduler that is not known, a value that is not served, an input, output or shape
    /// that does not fit the rest.
    pub fn load(path: &Path, runtime: &Runtime, intra_threads: usize) -> Result<Self, CheckingError> {
        let index = Config::read(&path.join("model_index.json"))?;
        let class = index.word("_class_name", "")?;
        let plain = class.strip_prefix("ORT").or(class.strip_prefix("Onnx")).unwrap_or(class);
        let Some((_, large)) = CLASSES.iter().find(|(name, _)| *name == plain) else {
            let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
            let why = format!("is '{class}'; served are {}", known.join(", "));
            return Err(index.refuse("_class_name", why));
        };
        if path.join("transformer").exists() {
            return Err(wrong(&path.join("transformer"), format!("a {class} has a unet, not a transformer")));
        }
        let zeros = index.flag("force_zeros_for_empty_prompt", *large)?;
        let model = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        // What is quick to read comes first: a wrong field is told before gigabytes are.
        let schedule = Spec::load(&path.join("scheduler"))?;
        let conditioner = Conditioner::open(&model, path, *large, zeros, runtime, intra_threads)?;
        let autoencoder = Autoencoder::open(&model, path, runtime, intra_threads)?;
        let denoiser = Denoiser::open(
            &model,
            &path.join("unet"),
            &conditioner,
            autoencoder.channels,
            runtime,
            intra_threads,
        )?;
        Ok(Self { model, conditioner, denoiser, autoencoder, schedule })
    }

    /// The ids that a prompt becomes: start, words, end, padding, as many as the text encoder reads.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] for a prompt of more than 16 KiB.
    pub fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, CheckingError> {
        self.conditioner.ids(prompt)
    }

    /// What a side is divided by to give the latents' side; widths and heights are multiples of it.
    #[must_use]
    pub fn factor(&self) -> usize {
        self.autoencoder.factor
    }

    /// Generates one image: the same bytes for the same request, on one machine with as many threads. `progress` is
    /// told the steps done and the steps in all, behind each. Setting `cancel` ends the run before its next pass.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] for a request outside its bounds or that does not fit the pipeline;
    /// [`CheckingError::Stopped`] when it was cancelled; [`CheckingError::Inference`] if a graph fails or gives
    /// what is no number; [`CheckingError::ModelFile`] if a graph gives other shapes than it declared.
    pub fn generate(
        &self,
        request: &ImageRequest,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Image, CheckingError> {
        request.check(self.autoencoder.factor)?;
        let go_on = || if cancel.load(Ordering::Relaxed) { Err(CheckingError::Stopped) } else { Ok(()) };
        go_on()?;
        let mut schedule = self.schedule.build(request.scheduler.as_deref(), request.steps)?;
        let first = first_step(request)?;
        let timesteps = schedule.timesteps().get(first..).unwrap_or_default().to_vec();
        let shape = self.autoencoder.latent_shape(request.width, request.height);
        let count = shape.iter().product();
        let mut generator = Generator::new(request.noise, request.seed);
        let guided = request.guided() && !self.denoiser.embeds_guidance();
        let condition = self.conditioner.read(request, guided)?;

        // The order of draws is diffusers': the encoder's sample, the noise to begin with, then the steps'.
        let mut latents = match &request.init {
            None => {
                let scale = schedule.initial_scale();
                generator.normal(count).into_iter().map(|v| v * scale).collect()
            }
            Some((pixels, _)) => {
                go_on()?;
                let picture = self.autoencoder.encode(pixels, &mut generator)?;
                let noise = generator.normal(count);
                schedule.noised(first, &picture, &noise)?
            }
        };
        for (done, time) in timesteps.iter().enumerate() {
            go_on()?;
            let step = first + done;
            let scaled = schedule.scaled(step, &latents)?;
            let answer = self.denoiser.ask(&scaled, shape, *time, &condition, request, guided)?;
            latents = schedule.step(step, &answer, &latents, &mut |n| generator.normal(n))?;
            if !latents.iter().all(|v| v.is_finite()) {
                return Err(CheckingError::Inference {
                    model: self.model.clone(),
                    why: format!(
                        "its latents are not finite behind step {} of {}",
                        done + 1,
                        timesteps.len()
                    ),
                });
            }
            progress(done + 1, timesteps.len());
        }
        go_on()?;
        let pixels = self.autoencoder.decode(&latents, shape)?;
        Ok(Image { pixels, latent: latents, latent_shape: shape, timesteps })
    }
}

/// The step that a run begins with: a picture to begin with goes through the last `strength` of them.
fn first_step(request: &ImageRequest) -> Result<usize, CheckingError> {
    let Some((_, strength)) = &request.init else {
        return Ok(0);
    };
    let left = ((request.steps as f64 * strength) as usize).min(request.steps);
    if left == 0 {
        let why = format!("{} steps at the strength {strength} leave none", request.steps);
        return Err(CheckingError::BadParameters(why));
    }
    Ok(request.steps - left)
}
