//! Images from prompts: a folder of ONNX graphs in Hugging Face's layout, run as diffusers runs it.
//!
//! For: computing the picture that an honest miner computes for the same request, noise included, and its latents.
//! Not for: judging a miner's picture, that is what compares pixels. The one idea: everything outside the graphs is
//! arithmetic on a few thousand numbers, done in the precision and order in which diffusers does it, so that what
//! differs between two honest machines is only what their kernels round differently.
//!
//! Served are pipelines of Stable Diffusion's shape (1.x, 2.x, XL, latent consistency models), in single or half
//! precision, with an optional `image_projection` that adds an identity behind the prompt.

mod autoencoder;
mod condition;
mod config;
mod denoiser;
mod external;
mod graphs;
mod noise;
mod pipeline;
mod request;
mod schedule;
mod tokenizer;

pub use noise::Noise;
pub use pipeline::Pipeline;
pub use request::{Image, ImageRequest, Pixels};
