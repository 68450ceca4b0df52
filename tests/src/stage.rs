//! A validator and its miners as processes of their own, in a folder, over a subnet that is a folder too.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nineteen_chain::{Blocks, LocalSubnet, Rules, Subnet};
use nineteen_domain::meet::Neuron;
use nineteen_domain::{Hotkey, Uid};
use nineteen_wire::keys::create_keyfile;

use crate::{Result, cache, nineteen, repository};

/// The only task: its model loads in half a second, so that a run has many lives.
pub(crate) const TASK: &str = "embed-minilm-l6";
/// Miners at the start.
pub(crate) const MINERS: usize = 3;
/// The shortest that a validator takes.
pub(crate) const PERIOD_S: u64 = 10;

/// A process that ends with it.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// The folder of a run, and who is in it.
pub(crate) struct Stage {
    pub(crate) dir: PathBuf,
    /// The validator's key.
    pub(crate) validator: Hotkey,
    operator: SocketAddr,
    pub(crate) subnet: LocalSubnet,
    /// Names of the miners' access logs.
    pub(crate) logs: Vec<String>,
    /// What the miners serve.
    served: Vec<&'static str>,
}

impl Stage {
    /// Sets a run up in this empty folder and starts its miners, `miner-0` and on, of uid 1 and on.
    pub(crate) fn set(dir: &Path) -> Result<(Self, Vec<Running>)> {
        Self::with_tasks(dir, &[TASK])
    }

    /// The same with miners that serve more tasks than the validator begins with.
    pub(crate) fn with_tasks(dir: &Path, served: &[&'static str]) -> Result<(Self, Vec<Running>)> {
        let operator = free_address()?;
        let validator = create_keyfile(dir.join("validator.key"))?.hotkey();
        let own =
            Neuron { uid: Uid(0), hotkey: validator, axon: None, stake: 1_000.0, validator_permit: true };
        let rules = Rules { weights_rate_limit: 0, ..Rules::default() };
        // Short blocks, so that the beacon starts windows in most periods.
        let blocks = Blocks::Time { genesis_us: 1_704_067_200_000_000, block_ms: 2_000 };
        let subnet = Subnet { netuid: 19, owner: None, blocks, rules, neurons: vec![own] };
        let mut stage = Self {
            dir: dir.to_owned(),
            validator,
            operator,
            subnet: LocalSubnet::create(&dir.join("subnet"), &subnet)?,
            logs: Vec::new(),
            served: served.to_vec(),
        };
        fs::write(
            dir.join("taskset.toml"),
            format!(
                "name = \"soak\"\nversion = \"1.0.0\"\npolicy = \"default\"\nshare_multiplier = 6.0\n\
                 [[task]]\nfolder = {:?}\nweight = 1.0\n",
                repository().join("tasks").join(TASK)
            ),
        )?;
        fs::write(
            dir.join("nineteen.toml"),
            format!(
                "[paths]\ntaskset = \"taskset.toml\"\ndata = \"data\"\n\
                 [identity]\nhotkey_file = \"validator.key\"\n[subnet]\nfolder = \"subnet\"\n\
                 [validator]\nperiod_s = {PERIOD_S}\ngrace_s = 5\nlisten = \"{operator}\"\n\
                 allow_private_miners = true\njudges = 1\n"
            ),
        )?;
        let mut miners = Vec::new();
        for n in 0..MINERS {
            let (key, capacity) = (format!("miner-{n}"), 36_000 / (n + 1));
            let hotkey = create_keyfile(dir.join(format!("{key}.key")))?.hotkey();
            let (axon, running) = stage.miner(&key, &key, capacity)?;
            miners.push(running);
            let uid = Uid(u16::try_from(n + 1)?);
            stage.change(|neurons| {
                neurons.push(Neuron { uid, hotkey, axon: Some(axon), stake: 0.0, validator_permit: false });
            })?;
        }
        Ok((stage, miners))
    }

    /// Starts a miner of this name with that key and capacity per hour, and waits until it listens.
    pub(crate) fn miner(&mut self, name: &str, key: &str, capacity: usize) -> Result<(SocketAddr, Running)> {
        let addr = free_address()?;
        let mut config = format!(
            "[identity]\nhotkey_file = \"{key}.key\"\n[subnet]\nfolder = \"subnet\"\n\
             [miner]\nlisten = \"{addr}\"\naccess_log = \"{name}.jsonl\"\n"
        );
        for task in &self.served {
            let task = format!(
                "[miner.tasks.{task}]\noperation = \"embeddings\"\nmodel = \"all-minilm-l6-v2\"\n\
                 capacity_per_hour = {capacity}\n"
            );
            config.push_str(&task);
        }
        fs::write(self.dir.join(format!("{name}.toml")), config)?;
        let running = self.start(name, "miner")?;
        self.logs.push(format!("{name}.jsonl"));
        wait(Duration::from_secs(120), "the miner listens", || TcpStream::connect(addr).is_ok())?;
        Ok((addr, running))
    }

    /// Starts the validator; it may not listen yet.
    pub(crate) fn validator(&self) -> Result<Running> {
        self.start("nineteen", "validator")
    }

    fn start(&self, config: &str, command: &str) -> Result<Running> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{config}.log")))?;
        let child = Command::new(nineteen())
            .args(["--config", &format!("{config}.toml"), command])
            .current_dir(&self.dir)
            .env("NINETEEN_CACHE", cache())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Running(child))
    }

    /// Where the validator's operator asks.
    pub(crate) fn operator(&self) -> SocketAddr {
        self.operator
    }

    /// Waits until the validator answers its operator.
    pub(crate) fn listens(&self) -> Result<()> {
        wait(Duration::from_secs(60), "the validator listens", || TcpStream::connect(self.operator).is_ok())
    }

    /// Changes who is on the subnet, as its chain would: at once, and whole.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<Neuron>)) -> Result<()> {
        let mut subnet = self.subnet.subnet()?;
        change(&mut subnet.neurons);
        LocalSubnet::create(self.subnet.dir(), &subnet)?;
        Ok(())
    }

    /// Kills the validator with -9; an error if it had ended by itself.
    pub(crate) fn kill(&self, mut validator: Running) -> Result<()> {
        if let Some(status) = validator.0.try_wait()? {
            let words = self.last_words();
            return Err(format!("the validator ended by itself: {status}; {words}").into());
        }
        validator.0.kill()?;
        validator.0.wait()?;
        Ok(())
    }

    /// Asks the validator to stop, and waits until it has.
    pub(crate) fn stop(&self, mut validator: Running) -> Result<()> {
        let asked = Command::new("kill").args(["-TERM", &validator.0.id().to_string()]).status()?;
        if !asked.success() || !validator.0.wait()?.success() {
            return Err(format!("the validator did not stop as asked; {}", self.last_words()).into());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(self.dir.join("nineteen.log")).unwrap_or_default();
        text.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

/// An address that nobody listens at.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits until this is so, `most` at most.
pub(crate) fn wait(most: Duration, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > most {
            return Err(format!("after {} s it is not so that {what}", most.as_secs()).into());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}
