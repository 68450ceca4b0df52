//! Models being served: folders verified, sessions built, threads running, and their end.
//!
//! For: the one place that owns the threads. Not for: what they compute. The one idea: handles only hold queues.
//! Whoever holds [`Executors`] can stop everything, and handles that outlive it are told that it has stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use nineteen_domain::id::ModelName;
use nineteen_domain::meet;
use ort::session::Session;
use ort::session::builder::PrepackedWeights;

use crate::checker::{Checker, Models};
use crate::embedding::{self, EmbeddingModel};
use crate::error::CheckingError;
use crate::folder::{Folder, Kind};
use crate::graph::Graph;
use crate::image::ImageModel;
use crate::lane::{lane, work};
use crate::runtime::{Runtime, one_line};
use crate::tensors::TensorModel;
use crate::text::{self, TextModel};
use crate::vision::VisionModel;

/// A model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// The name under which it is asked for.
    pub name: ModelName,
    /// Its folder below the models' folder; the name where absent.
    pub folder: Option<ModelName>,
}

impl From<ModelName> for ModelConfig {
    fn from(name: ModelName) -> Self {
        Self { name, folder: None }
    }
}

/// What is served and with how much.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Folder of the models' folders.
    pub models_dir: PathBuf,
    /// Sessions, each with its thread, a model; at least 1. On a CPU one a core, shared with all else, is best.
    pub threads_per_model: usize,
    /// Threads inside one session; at least 1. More than 1 pays only for a lone caller.
    pub intra_threads: usize,
    /// Jobs that may wait for one model; callers beyond it wait themselves.
    pub queue: usize,
    /// The models.
    pub models: Vec<ModelConfig>,
}

/// Everything that is being served. Dropping it stops it, waiting for the pass that each thread is in.
pub struct Executors {
    texts: BTreeMap<String, TextModel>,
    embeddings: BTreeMap<String, EmbeddingModel>,
    images: BTreeMap<String, ImageModel>,
    visions: BTreeMap<String, VisionModel>,
    tensors: BTreeMap<String, TensorModel>,
    checker: Arc<Checker>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Executors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executors")
            .field("texts", &self.texts.keys())
            .field("embeddings", &self.embeddings.keys())
            .field("images", &self.images.keys())
            .field("visions", &self.visions.keys())
            .field("tensors", &self.tensors.keys())
            .field("threads", &self.threads.len())
            .finish()
    }
}

impl Executors {
    /// Verifies the folders, builds the sessions, proves each with a pass, starts the threads. Blocks for
    /// seconds: call it from a blocking thread.
    ///
    /// # Errors
    /// [`CheckingError::ModelFile`] naming the file; [`CheckingError::Model`] for graphs that do not fit; what the
    /// runtime refuses.
    pub fn start(runtime: Arc<Runtime>, config: ExecutorConfig) -> Result<Self, CheckingError> {
        let mut this = Self {
            texts: BTreeMap::new(),
            embeddings: BTreeMap::new(),
            images: BTreeMap::new(),
            visions: BTreeMap::new(),
            tensors: BTreeMap::new(),
            checker: Arc::new(Checker::default()),
            threads: Vec::new(),
        };
        // Every folder before any session: a missing file shows in milliseconds.
        let mut opened = Vec::new();
        for model in &config.models {
            let folder = Folder::open(&config.models_dir, model.folder.as_ref().unwrap_or(&model.name))?;
            opened.push((&model.name, folder));
        }
        for (name, folder) in opened {
            let name_ = name.as_str();
            if this.texts.contains_key(name_)
                || this.embeddings.contains_key(name_)
                || this.images.contains_key(name_)
                || this.visions.contains_key(name_)
                || this.tensors.contains_key(name_)
            {
                return Err(CheckingError::BadParameters(format!("the model '{name}' is configured twice")));
            }
            this.serve(&runtime, &config, name, &folder)?;
        }
        this.checker = Arc::new(Checker::new(Models {
            texts: this.texts.clone(),
            embeddings: this.embeddings.clone(),
            images: this.images.clone(),
            visions: this.visions.clone(),
            tensors: this.tensors.clone(),
        }));
        Ok(this)
    }

    fn serve(
        &mut self,
        runtime: &Runtime,
        config: &ExecutorConfig,
        name: &ModelName,
        folder: &Folder,
    ) -> Result<(), CheckingError> {
        let weights = PrepackedWeights::new();
        let provider = runtime.provider();
        let session = || -> Result<Session, CheckingError> {
            let refuse = |why: String| CheckingError::ModelFile { path: folder.graph(), why: one_line(&why) };
            runtime
                .session_builder(config.intra_threads)?
                .with_prepacked_weights(&weights)
                .map_err(|e| refuse(e.to_string()))?
                .commit_from_file(folder.graph())
                .map_err(|e| refuse(e.to_string()))
        };
        let threads = config.threads_per_model.max(1);
        match &folder.kind {
            Kind::Text { eos_ids, context } => {
                let shared = Arc::new(text::Shared::load(name, folder, provider, eos_ids, *context)?);
                let (lane, intake) = lane(config.queue);
                let first = session()?;
                let graph = Arc::new(Graph::of(name.as_str(), &first)?);
                let mut sessions = vec![first];
                for _ in 1..threads {
                    sessions.push(session()?);
                }
                // Kept first, so that an error further down stops the threads that are already running.
                let model = TextModel { shared: Arc::clone(&shared), lane };
                self.texts.insert(name.as_str().to_owned(), model);
                for (i, session) in sessions.into_iter().enumerate() {
                    let (shared, graph, intake) = (Arc::clone(&shared), Arc::clone(&graph), intake.clone());
                    let mut worker = text::Worker { shared, graph, session, intake: intake.clone() };
                    worker.prove()?;
                    let each = move |jobs: Vec<text::Job>| jobs.into_iter().for_each(|job| worker.run(job));
                    self.threads.push(work(format!("text-{i}"), intake, 1, each)?);
                }
            }
            Kind::Embedding { max_length, dimension, normalise } => {
                let shared =
                    embedding::Shared::load(name, folder, provider, *max_length, *dimension, *normalise)?;
                let shared = Arc::new(shared);
                let (lane, intake) = lane(config.queue);
                let model = EmbeddingModel { shared: Arc::clone(&shared), lane };
                self.embeddings.insert(name.as_str().to_owned(), model);
                for i in 0..threads {
                    let mut worker = embedding::Worker::new(Arc::clone(&shared), session()?, intake.clone())?;
                    let each = move |jobs: Vec<embedding::Job>| worker.run(jobs);
                    self.threads.push(work(
                        format!("embed-{i}"),
                        intake.clone(),
                        embedding::MOST_JOBS,
                        each,
                    )?);
                }
            }
            Kind::Diffusion => {
                let sizes = [threads, config.intra_threads, config.queue];
                let (model, running) = ImageModel::start(name, folder, runtime, sizes)?;
                self.images.insert(name.as_str().to_owned(), model);
                self.threads.extend(running);
            }
            Kind::Vision => {
                let sizes = [threads, config.intra_threads, config.queue];
                let (model, running) = VisionModel::start(name, folder, runtime, sizes)?;
                self.visions.insert(name.as_str().to_owned(), model);
                self.threads.extend(running);
            }
            Kind::Tensors => {
                let sizes = [threads, config.intra_threads, config.queue];
                let (model, running) = TensorModel::start(name, folder, runtime, sizes)?;
                self.tensors.insert(name.as_str().to_owned(), model);
                self.threads.extend(running);
            }
        }
        tracing::info!(model = %name, precision = folder.precision, %provider, threads, "model is being served");
        Ok(())
    }

    /// What answers the plugins' checks.
    #[must_use]
    pub fn checker(&self) -> Arc<dyn meet::Checker> {
        let checker: Arc<Checker> = Arc::clone(&self.checker);
        checker
    }

    /// The text model of this name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<TextModel> {
        self.texts.get(name).cloned()
    }

    /// The embedding model of this name.
    #[must_use]
    pub fn embedding(&self, name: &str) -> Option<EmbeddingModel> {
        self.embeddings.get(name).cloned()
    }

    /// The image pipeline of this name.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<ImageModel> {
        self.images.get(name).cloned()
    }

    /// The vision model of this name.
    #[must_use]
    pub fn vision(&self, name: &str) -> Option<VisionModel> {
        self.visions.get(name).cloned()
    }

    /// The graph of this name that is run on plain tensors.
    #[must_use]
    pub fn tensors(&self, name: &str) -> Option<TensorModel> {
        self.tensors.get(name).cloned()
    }

    /// Stops: generations end as cancelled between two tokens, what waits is told so, passes under way finish.
    pub async fn stop(mut self) {
        self.close();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if joined.is_err() {
            tracing::error!("the executors' threads could not be joined");
        }
    }

    fn close(&self) {
        self.texts.values().for_each(|m| m.lane.close());
        self.embeddings.values().for_each(|m| m.lane.close());
        self.images.values().for_each(|m| m.lane.close());
        self.visions.values().for_each(|m| m.lane.close());
        self.tensors.values().for_each(|m| m.lane.close());
    }
}

impl Drop for Executors {
    fn drop(&mut self) {
        self.close();
        join(std::mem::take(&mut self.threads));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("an executor's thread had panicked");
        }
    }
}
