//! Asks a running validator, for the command line: the store is locked while it runs.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Bytes of one report.
const MOST: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a running validator gave no report.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nobody answers there.
    #[error("no validator answers on {addr}: {why}")]
    Unreachable {
        /// Where it was looked for.
        addr: SocketAddr,
        /// What happened.
        why: String,
    },
    /// It answers with a refusal.
    #[error("{0}")]
    Refused(String),
}

/// Reads reports from a validator on this machine.
#[derive(Debug, Clone, Copy)]
pub struct OperatorClient {
    addr: SocketAddr,
}

impl OperatorClient {
    /// For the validator that listens here.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self { addr }
    }

    /// One report.
    ///
    /// # Errors
    /// [`OperatorError`]; a refusal carries the validator's own words.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, OperatorError> {
        let unreachable = |why: String| OperatorError::Unreachable { addr: self.addr, why };
        let (status, body) = tokio::time::timeout(PATIENCE, self.fetch(path))
            .await
            .map_err(|_| unreachable("no answer in 30 s".into()))?
            .map_err(unreachable)?;
        if status != 200 {
            let said = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let said = said.as_ref().and_then(|v| v.pointer("/error/message")).and_then(|m| m.as_str());
            return Err(OperatorError::Refused(
                said.map_or_else(|| format!("status {status}"), str::to_owned),
            ));
        }
        serde_json::from_slice(&body)
            .map_err(|e| OperatorError::Refused(format!("its answer is not a report: {e}")))
    }

    async fn fetch(&self, path: &str) -> Result<(u16, Vec<u8>), String> {
        let say = |e: &dyn std::fmt::Display| e.to_string();
        let stream = TcpStream::connect(self.addr).await.map_err(|e| say(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| say(&e))?;
        let request = hyper::Request::get(path)
            .header("host", self.addr.to_string())
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|e| say(&e))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| say(&e))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MOST).collect().await.map_err(|e| say(&e))?;
            Ok((status, body.to_bytes().to_vec()))
        };
        // The connection is driven here and ends with the exchange: nothing is spawned.
        tokio::pin!(exchange, connection);
        tokio::select! {
            done = &mut exchange => done,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(e) => Err(e.to_string()),
            },
        }
    }
}
