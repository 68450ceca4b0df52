//! The host's executors: models on ONNX Runtime that answer checks, and generate for the miner.
//!
//! For: computing with models in one trusted place, under one set of numbers. Not for: deciding anything about a
//! miner. The one idea: the reference is our own executor, and the claim is bytes; whatever a miner reports
//! about its answer is recomputed here from the answer itself.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use nineteen_checking::{ExecutorConfig, Executors, Provider, Runtime, RuntimeConfig};
//! let runtime = Runtime::load(&RuntimeConfig {
//!     library: None,
//!     cache_onnxruntime_dir: "cache/onnxruntime".into(),
//!     providers: vec![Provider::Cpu],
//! })?;
//! let executors = Executors::start(runtime, ExecutorConfig {
//!     models_dir: "cache/models".into(),
//!     threads_per_model: 1,
//!     intra_threads: 1,
//!     queue: 64,
//!     models: vec![nineteen_domain::id::ModelName::new("all-minilm-l6-v2")?.into()],
//! })?;
//! let model = executors.embedding("all-minilm-l6-v2").ok_or("not served")?;
//! println!("{}", model.embed(vec!["A cat.".into()]).await?.rows.len());
//! executors.stop().await;
//! # Ok(())
//! # }
//! ```

mod checker;
mod diffusion;
mod embedding;
mod error;
mod executors;
mod fleet;
mod folder;
mod golden;
mod graph;
mod image;
mod lane;
mod philox;
mod pieces;
pub mod pixels;
mod reduce;
mod runtime;
mod sampler;
mod template;
mod tensors;
mod text;
mod vision;

pub use checker::request_number;
pub use diffusion::{Image, ImageRequest, Noise, Pipeline, Pixels};
pub use embedding::{Embedded, EmbeddingModel};
pub use error::CheckingError;
pub use executors::{ExecutorConfig, Executors, ModelConfig};
pub use fleet::Fleet;
pub use folder::identity;
pub use golden::{answers_as_known, measured, quarantined};
pub use image::ImageModel;
pub use philox::philox4x32_10;
pub use runtime::{Provider, Runtime, RuntimeConfig};
pub use sampler::Sampler;
pub use template::Message;
pub use tensors::{Dtype, Named, TensorModel};
pub use text::{
    Completion, Finish, GenerateEnd, GenerateRequest, GeneratedToken, MOST_TOGETHER, Prompt, Rendered,
    Replay, ReplayRequest, TextModel,
};
pub use vision::{Face, Landmarks, Sight, VisionModel};
