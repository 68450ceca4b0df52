//! The image executor: pipelines on threads of their own, behind a bounded queue.
//!
//! For: any number of callers, work that is given up when its caller goes, an end. Not for: how a picture comes about,
//! that is `diffusion`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nineteen_domain::id::ModelName;
use tokio::sync::oneshot;

use crate::diffusion::{Image, ImageRequest, Pipeline};
use crate::error::CheckingError;
use crate::folder::Folder;
use crate::lane::{Lane, lane, work};
use crate::runtime::{Provider, Runtime};

/// Pipelines above this many bytes of files are held once, with all threads for one picture.
const LARGE: u64 = 1 << 30;

pub(crate) struct Shared {
    model: String,
    precision: String,
    provider: Provider,
}

pub(crate) struct Job {
    request: ImageRequest,
    cancel: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<Image, CheckingError>>,
}

/// A handle on an image pipeline that is being served. Cheap to clone.
#[derive(Clone)]
pub struct ImageModel {
    shared: Arc<Shared>,
    pub(crate) lane: Arc<Lane<Job>>,
}

impl std::fmt::Debug for ImageModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageModel").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

/// Gives the run up when its caller is gone.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl ImageModel {
    /// Loads a pipeline and starts its threads. Blocks for seconds.
    pub(crate) fn start(
        name: &ModelName,
        folder: &Folder,
        runtime: &Runtime,
        [threads, intra_threads, queue]: [usize; 3],
    ) -> Result<(Self, Vec<JoinHandle<()>>), CheckingError> {
        let large = size(&folder.path) > LARGE;
        let (pipelines, intra_threads) =
            if large { (1, threads.saturating_mul(intra_threads)) } else { (threads, intra_threads) };
        let mut loaded = Vec::with_capacity(pipelines);
        for _ in 0..pipelines.max(1) {
            loaded.push(Pipeline::load(&folder.path, runtime, intra_threads)?);
        }
        let (lane, intake) = lane(queue);
        let shared = Shared {
            model: name.to_string(),
            precision: folder.precision.clone(),
            provider: runtime.provider(),
        };
        let mut running = Vec::with_capacity(loaded.len());
        for (i, pipeline) in loaded.into_iter().enumerate() {
            let stopping = intake.clone();
            let each = move |jobs: Vec<Job>| {
                for Job { request, cancel, reply } in jobs {
                    let mut look = |_: usize, _: usize| {
                        if stopping.stopping() {
                            cancel.store(true, Ordering::Relaxed);
                        }
                    };
                    look(0, 0);
                    // A caller that is gone wants no answer.
                    let _ = reply.send(pipeline.generate(&request, &cancel, &mut look));
                }
            };
            running.push(work(format!("image-{i}"), intake.clone(), 1, each)?);
        }
        Ok((Self { shared: Arc::new(shared), lane }, running))
    }

    /// The name under which it is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.model
    }

    /// Of its weights, as its folder says.
    #[must_use]
    pub fn precision(&self) -> &str {
        &self.shared.precision
    }

    /// What computes.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.shared.provider
    }

    /// Generates a picture. Dropping the future gives it up before its next step.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] for a request outside its bounds, or a fault of the model or executors.
    pub async fn generate(&self, request: ImageRequest) -> Result<Image, CheckingError> {
        let (reply, answer) = oneshot::channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let guard = CancelOnDrop(Arc::clone(&cancel));
        self.lane.submit(Job { request, cancel, reply }).await?;
        let answered = answer.await;
        drop(guard);
        answered.unwrap_or_else(|_| {
            let why = "the executor gave the job up; its log says why".into();
            Err(CheckingError::Inference { model: self.shared.model.clone(), why })
        })
    }
}

/// Bytes of all files below a folder, as far as they can be seen.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|e| match e.path().metadata() {
            Ok(meta) if meta.is_dir() => size(&e.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
