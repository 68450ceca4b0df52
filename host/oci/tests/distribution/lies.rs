//! A small registry over real sockets that lies where it is told to, and is honest everywhere else.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nineteen_oci::{CONFIG_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Packed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is sent back.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Status line without version, headers, body; its true length is stated.
    Whole(&'static str, Vec<String>, Vec<u8>),
    /// States a length and sends so many bytes fewer.
    Short(Vec<u8>, usize),
    /// A body that never ends, with or without a stated length.
    Endless(bool),
    /// A head that never ends.
    EndlessHead,
    /// Nothing, ever.
    Hang,
    /// The beginning of a body, then nothing.
    HangInBody(Vec<u8>),
    /// A byte every so often.
    Drip(Vec<u8>, Duration),
    /// Bytes that are no HTTP.
    Noise,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Whole("200 OK", Vec::new(), body.into())
    }
    pub(crate) fn manifest(body: impl Into<Vec<u8>>) -> Self {
        Self::Whole("200 OK", vec![format!("Content-Type: {MANIFEST_MEDIA_TYPE}")], body.into())
    }
    pub(crate) fn redirect(to: impl std::fmt::Display) -> Self {
        Self::Whole("307 Temporary Redirect", vec![format!("Location: {to}")], Vec::new())
    }
    pub(crate) fn not_found() -> Self {
        Self::Whole(
            "404 Not Found",
            Vec::new(),
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#.to_vec(),
        )
    }
}

/// Method and path to a lie; `None` is the truth.
type Lie = dyn Fn(&str, &str) -> Option<Reply> + Send + Sync;

pub(crate) struct Liar {
    pub(crate) address: SocketAddr,
    /// Heads of requests, as they came.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    /// Bytes that went out.
    pub(crate) sent: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Liar {
    /// Serves a task under one tag.
    pub(crate) async fn start(
        task: &Packed,
        lie: impl Fn(&str, &str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let lie: Arc<Lie> = Arc::new(lie);
        let (task, inner) = (Arc::new(task.clone()), (Arc::clone(&heard), Arc::clone(&sent)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (task, lie, (heard, sent)) = (Arc::clone(&task), Arc::clone(&lie), inner.clone());
                connections.spawn(async move {
                    // The other side hangs up on us: that is what is tested.
                    let _ = serve(stream, &task, &*lie, &heard, &sent).await;
                });
            }
        });
        Self { address, heard, sent, _tasks: tasks }
    }

    pub(crate) fn place(&self, rest: &str) -> String {
        format!("{}/tasks/chat{rest}", self.address)
    }
}

async fn serve(
    mut stream: TcpStream,
    task: &Packed,
    lie: &Lie,
    heard: &Mutex<Vec<String>>,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 64 << 10 {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    heard.lock().unwrap().push(head.clone());
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let reply = lie(method, path).unwrap_or_else(|| truth(task, path));
    let mut write = async |bytes: &[u8]| {
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        stream.write_all(bytes).await
    };
    let length = |n: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n").into_bytes();
    match reply {
        Reply::Whole(status, headers, body) => {
            let mut out = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
            for header in headers {
                out += &format!("{header}\r\n");
            }
            write(format!("{out}Connection: close\r\n\r\n").as_bytes()).await?;
            if method != "HEAD" {
                write(&body).await?;
            }
        }
        Reply::Short(body, missing) => {
            write(&length(body.len())).await?;
            write(&body[..body.len() - missing]).await?;
        }
        Reply::Endless(stated) => {
            write(&if stated { length(1 << 40) } else { b"HTTP/1.1 200 OK\r\n\r\n".to_vec() }).await?;
            loop {
                write(&[b' '; 16 << 10]).await?;
            }
        }
        Reply::EndlessHead => {
            write(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                write(b"X-More: and more and more and more and more and more\r\n").await?;
            }
        }
        Reply::Hang => std::future::pending::<()>().await,
        Reply::HangInBody(body) => {
            write(&length(body.len() + 1)).await?;
            write(&body).await?;
            std::future::pending::<()>().await;
        }
        Reply::Drip(body, every) => {
            write(&length(body.len())).await?;
            for byte in body {
                write(&[byte]).await?;
                tokio::time::sleep(every).await;
            }
        }
        Reply::Noise => write(&[0xff; 10_000]).await?,
    }
    Ok(())
}

/// What an honest registry says.
fn truth(task: &Packed, path: &str) -> Reply {
    let version = task.manifest().version.to_string();
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if rest.is_empty() {
        return Reply::ok("{}");
    }
    let rest = rest.strip_prefix("tasks/chat/").unwrap_or_default();
    if let Some(which) = rest.strip_prefix("manifests/") {
        let ours = which == version || which == task.digest().to_string();
        return if ours { Reply::manifest(task.manifest_bytes().to_vec()) } else { Reply::not_found() };
    }
    if let Some(digest) = rest.strip_prefix("blobs/") {
        let mut blobs = task.layers().iter().chain([task.config()]);
        let found = blobs.find(|blob| blob.descriptor.digest.to_string() == digest);
        return found.map_or_else(Reply::not_found, |blob| Reply::ok(blob.bytes.to_vec()));
    }
    if rest.starts_with("tags/list") {
        return Reply::ok(format!(r#"{{"name":"tasks/chat","tags":["{version}"]}}"#));
    }
    Reply::not_found()
}

/// A manifest that names the config and layers of a task, changed by hand.
pub(crate) fn changed(task: &Packed, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut manifest: serde_json::Value = serde_json::from_slice(task.manifest_bytes()).unwrap();
    assert_eq!(manifest["config"]["mediaType"], CONFIG_MEDIA_TYPE);
    change(&mut manifest);
    serde_json::to_vec(&manifest).unwrap()
}
