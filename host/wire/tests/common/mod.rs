//! A raw TCP server that says what a test tells it to, and the client that asks it. Nothing of HTTP is done
//! for the server, so nothing of it is done right by accident.

use std::future::Future;
use std::sync::Arc;

use nineteen_wire::{Client, ClientConfig, Keypair, Target};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const SEND_BUFFER: u32 = 64 << 10;

/// A client that may reach loopback.
pub(crate) fn client() -> Client {
    let mut config = ClientConfig::new(Arc::new(Keypair::from_seed([1; 32])));
    config.allow_private = true;
    Client::new(config)
}

/// Whom every server here claims to be.
pub(crate) fn miner() -> Keypair {
    Keypair::from_seed([2; 32])
}

/// Reads one request, headers and body.
async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    loop {
        let n = stream.read(&mut buf).await.unwrap_or(0);
        all.extend_from_slice(&buf[..n]);
        let text = String::from_utf8_lossy(&all).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |v| v.trim().parse::<usize>().unwrap());
            if all.len() >= end + 4 + length {
                return all;
            }
        }
        if n == 0 {
            return all;
        }
    }
}

/// A miner that answers every connection with `answer`, after reading the request.
pub(crate) async fn serve<F, A>(tasks: &mut JoinSet<()>, answer: A) -> Target
where
    A: Fn(TcpStream, Vec<u8>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let socket = TcpSocket::new_v4().unwrap();
    // Small, so that what a server gets rid of is what its client took, and little more.
    socket.set_send_buffer_size(SEND_BUFFER).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(64).unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        let answer = Arc::new(answer);
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let answer = Arc::clone(&answer);
            open.spawn(async move {
                let request = read_request(&mut stream).await;
                answer(stream, request).await;
            });
        }
    });
    Target { addr, hotkey: miner().hotkey() }
}
