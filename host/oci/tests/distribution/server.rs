//! Debian's `docker-registry` on loopback, with a folder of its own, ended with the test.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How it is started.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Who may come in: name and password.
    pub(crate) user: Option<(&'a str, &'a str)>,
    /// Certificate chain and key, as PEM.
    pub(crate) tls: Option<(&'a str, &'a str)>,
}

/// A registry that runs.
pub(crate) struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

/// Where `cargo xtask setup --only registry` puts it.
fn binary() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = var("NINETEEN_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|p| p.join("nineteen")))
        .or_else(|| var("HOME").map(|p| p.join(".cache/nineteen")))
        .unwrap_or_default();
    let found = [cache.join("registry/root/usr/bin/docker-registry"), "/usr/bin/docker-registry".into()];
    found.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "\n\n  docker-registry is not there, and nothing is proved without it: run `cargo xtask setup --only \
             registry`, or `apt-get install docker-registry`\n  (looked in {} and /usr/bin)\n",
            cache.join("registry").display()
        )
    })
}

impl Server {
    pub(crate) fn start(options: &Options<'_>) -> Self {
        // Another process may take the port between our look and its start.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(options) {
                return server;
            }
        }
        panic!("docker-registry does not start: see its words above");
    }

    fn try_start(options: &Options<'_>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}}}\n\
             http:\n  addr: '{address}'\n  secret: test\n",
            path("data").display()
        );
        if let Some((chain, key)) = options.tls {
            std::fs::write(path("chain.pem"), chain).unwrap();
            std::fs::write(path("key.pem"), key).unwrap();
            config += &format!(
                "  tls: {{certificate: '{}', key: '{}'}}\n",
                path("chain.pem").display(),
                path("key.pem").display()
            );
        }
        if let Some((name, password)) = options.user {
            let hash =
                bcrypt::hash_with_result(password, 4).unwrap().format_for_version(bcrypt::Version::TwoY);
            std::fs::write(path("htpasswd"), format!("{name}:{hash}\n")).unwrap();
            config +=
                &format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", path("htpasswd").display());
        }
        std::fs::File::create(path("config.yml")).unwrap().write_all(config.as_bytes()).unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        let mut child = Command::new(binary())
            .arg("serve")
            .arg(path("config.yml"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                return Some(Self { child, folder, address });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = std::fs::read_to_string(path("log")).unwrap_or_default();
        eprintln!("docker-registry said: {said}");
        // It ended by itself, or it is of no use.
        let _ = child.kill();
        let _ = child.wait();
        None
    }

    /// `registry/repository` on it, with whatever follows.
    pub(crate) fn place(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it; its address stays nobody's.
    pub(crate) fn stop(mut self) -> SocketAddr {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
