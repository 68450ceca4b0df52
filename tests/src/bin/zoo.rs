//! `nineteen-zoo --kind K --oracle http://IP:PORT [--relay http://IP:PORT]`: one cheating miner. Says where it listens in
//! one line, and ends with its standard input, so that none is left behind by a test that was killed.

use std::net::{Ipv4Addr, SocketAddr};

use nineteen_tests::zoo::{Failure, kind, serve};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let mut rest = arguments.iter().skip_while(|a| *a != name).skip(1);
        rest.next().map(String::as_str)
    };
    let address = |url: &str| -> Result<SocketAddr, Failure> {
        Ok(url.strip_prefix("http://").ok_or("an address begins with http://")?.parse()?)
    };
    let kind = kind(value("--kind").ok_or("--kind is missing")?)?;
    let oracle = address(value("--oracle").ok_or("--oracle is missing")?)?;
    let relay = value("--relay").map(address).transpose()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let orphaned = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        served = serve::serve(listener, kind, oracle, relay) => served,
        _ = orphaned => Ok(()),
    }
}
