//! Debian's `docker-registry` on loopback, as `cargo xtask setup --only registry` unpacks it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Result, cache};

/// A registry on a free port. Ends with this.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Registry {
    /// Starts one that keeps its files in this folder.
    ///
    /// # Errors
    /// When the program is not there, or does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        let found: [PathBuf; 2] =
            [cache().join("registry/root/usr/bin/docker-registry"), "/usr/bin/docker-registry".into()];
        let program = found.into_iter().find(|path| path.is_file());
        let program =
            program.ok_or("docker-registry is not there: run `cargo xtask setup --only registry`")?;
        // Another process may take the port between our look and its start.
        for n in 0..5 {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let (config, data) = (folder.join(format!("registry-{n}.yml")), folder.join("registry"));
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
                 http: {{addr: '{address}', secret: test}}\n",
                data.display()
            );
            std::fs::write(&config, text)?;
            let mut serve = Command::new(&program);
            serve.arg("serve").arg(&config).env_clear();
            serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut registry = Self { child: serve.spawn()?, address };
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20) && registry.child.try_wait()?.is_none() {
                if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                    return Ok(registry);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Err("docker-registry does not start".into())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
