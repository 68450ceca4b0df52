//! Asks a running validator, for the command line: the store is locked while it runs.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::token::Token;

/// Bytes of one report.
const MOST: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// A change waits for a compilation, and perhaps for one before it.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

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

/// Reads reports from a validator on this machine, and asks it for changes.
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
        let request = self.request(hyper::Request::get(path), Vec::new())?;
        self.ask(request, PATIENCE).await
    }

    /// A change, by whoever holds the token. Takes as long as the change.
    ///
    /// # Errors
    /// [`OperatorError`]; a refusal carries the validator's own words.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &Token,
        body: &impl Serialize,
    ) -> Result<T, OperatorError> {
        let body = serde_json::to_vec(body).map_err(|e| OperatorError::Refused(e.to_string()))?;
        let request = hyper::Request::post(path)
            .header("authorization", token.bearer())
            .header("content-type", "application/json");
        let request = self.request(request, body)?;
        self.ask(request, LONG_PATIENCE).await
    }

    fn request(
        &self,
        request: hyper::http::request::Builder,
        body: Vec<u8>,
    ) -> Result<hyper::Request<Full<bytes::Bytes>>, OperatorError> {
        let request = request.header("host", self.addr.to_string()).body(Full::new(body.into()));
        request.map_err(|e| OperatorError::Refused(e.to_string()))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: hyper::Request<Full<bytes::Bytes>>,
        patience: Duration,
    ) -> Result<T, OperatorError> {
        let unreachable = |why: String| OperatorError::Unreachable { addr: self.addr, why };
        let (status, body) = tokio::time::timeout(patience, self.fetch(request))
            .await
            .map_err(|_| unreachable(format!("no answer in {} s", patience.as_secs())))?
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

    async fn fetch(&self, request: hyper::Request<Full<bytes::Bytes>>) -> Result<(u16, Vec<u8>), String> {
        let say = |e: &dyn std::fmt::Display| e.to_string();
        let stream = TcpStream::connect(self.addr).await.map_err(|e| say(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| say(&e))?;
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
