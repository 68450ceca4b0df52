//! The owner's side: keys, making a set, signing, checking, publishing.

use std::path::{Path, PathBuf};

use nineteen_domain::Hotkey;
use nineteen_taskset::{
    Moment, Notice, Now, Owner, Passphrase, SET_FILE, Set, Standing, Status, Terms, admit, compose,
    create_owner_key, read_owner_key,
};
use serde_json::json;

use super::{at, beside, bytes_of, now, read_set, read_signatures, registry, trusted, write_new};
use crate::config::Config;
use crate::error::Failure;
use crate::print;

const DAY_S: u64 = 86_400;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Keys {
    /// Make a key in a new file of mode 0600 and print its address.
    New(KeyFile),
    /// Print the address of a key.
    Show(KeyFile),
}

#[derive(Debug, clap::Args)]
pub(crate) struct KeyFile {
    /// The key's file.
    file: PathBuf,
    /// File (mode 0600) whose first line is the key's passphrase; `-` reads standard input. Without it, the key lies
    /// in the clear.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn keys(args: &Keys) -> Result<(), Failure> {
    let (file, make) = match args {
        Keys::New(file) => (file, true),
        Keys::Show(file) => (file, false),
    };
    let passphrase = passphrase(file.passphrase_file.as_deref())?;
    let key = if make {
        create_owner_key(&file.file, passphrase.as_ref())
    } else {
        read_owner_key(&file.file, passphrase.as_ref())
    };
    let address = key.map_err(Failure::input)?.hotkey();
    if file.json {
        print::json(&json!({ "address": address, "file": file.file }))
    } else {
        print::out(&address.ss58())
    }
}

fn passphrase(file: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    file.map(Passphrase::read).transpose().map_err(Failure::input)
}

/// `90`, `90s`, `15m`, `36h` or `2d`, in seconds.
fn duration(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((i, _)) => text.split_at(i),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => DAY_S,
        _ => return Err("use a number and s, m, h or d, e.g. 36h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "use a number and s, m, h or d, e.g. 36h".to_owned())?;
    number.checked_mul(unit).filter(|s| *s <= 3_650 * DAY_S).ok_or_else(|| "use at most 3650d".into())
}

#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Where the set is written.
    #[arg(long, value_name = "FILE", default_value = SET_FILE)]
    out: PathBuf,
    /// The local task set, which names folders; default: `paths.taskset`.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The signed set that this one follows: sequence, owner and notice are taken over from it.
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Address of a key that may sign the next set; once a key.
    #[arg(long = "owner", value_name = "ADDRESS")]
    owners: Vec<Hotkey>,
    /// How many of the owner's keys have to sign.
    #[arg(long)]
    threshold: Option<u32>,
    /// Takes effect so long after now, e.g. 36h.
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "effective_block")]
    effective_in: Option<u64>,
    /// Takes effect at this block.
    #[arg(long, value_name = "BLOCK")]
    effective_block: Option<u64>,
    /// The chain's block now; default: that of `subnet.folder`.
    #[arg(long, value_name = "BLOCK", requires = "effective_block")]
    published_block: Option<u64>,
    /// Nobody takes it up any more so long after now.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "90d")]
    expires_in: u64,
    /// Notice that the next set has to give.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    notice: Option<u64>,
    /// The same for sets that take effect by block.
    #[arg(long, value_name = "BLOCKS")]
    notice_blocks: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn init(args: &Init, config: &Config) -> Result<(), Failure> {
    let before = args.after.as_deref().map(read_set).transpose()?;
    let now = now(config).await;
    let (published, effective) = dates(args, now)?;
    let before_notice = before.as_ref().map(|s| s.notice).unwrap_or_default();
    let terms = Terms {
        sequence: before.as_ref().map_or(1, |s| s.sequence.saturating_add(1)),
        published,
        effective,
        expires_unix_s: now.unix_s.saturating_add(args.expires_in),
        notice: Notice {
            seconds: args.notice.unwrap_or(before_notice.seconds),
            blocks: args.notice_blocks.unwrap_or(before_notice.blocks),
        },
        owner: owner(args, before.as_ref())?,
    };
    let local = args.from.as_deref().unwrap_or(&config.paths.taskset);
    let set = compose(local, &config.paths.components(), terms).map_err(Failure::input)?.set;
    if let Some(before) = before.filter(|b| set.version <= b.version) {
        return Err(at(local)(&format!(
            "version: {} is not above {}, which it follows",
            set.version, before.version
        )));
    }
    write_new(&args.out, &set.text().map_err(Failure::running)?, false)?;
    if args.json {
        return print::json(&json!({ "set": set.digest(), "sequence": set.sequence, "file": args.out }));
    }
    print::out(&format!(
        "{}: {} {}, sequence {}, takes effect at {}\n{}\nnext: {} of {} owners run `nineteen subnet sign {} --key FILE`",
        args.out.display(),
        set.name,
        set.version,
        set.sequence,
        set.effective,
        set.digest(),
        set.owner.threshold,
        set.owner.keys.len(),
        args.out.display(),
    ))
}

fn dates(args: &Init, now: Now) -> Result<(Moment, Moment), Failure> {
    let Some(block) = args.effective_block else {
        let effective = now.unix_s.saturating_add(args.effective_in.unwrap_or(0));
        return Ok((Moment::UnixS(now.unix_s), Moment::UnixS(effective)));
    };
    let published = args.published_block.or(now.block).ok_or_else(|| {
        Failure::input("--effective-block: subnet.folder gives no block to count from: add --published-block")
    })?;
    Ok((Moment::Block(published), Moment::Block(block)))
}

fn owner(args: &Init, before: Option<&Set>) -> Result<Owner, Failure> {
    match before {
        _ if !args.owners.is_empty() => {
            let threshold = args.threshold.or(before.map(|s| s.owner.threshold));
            let threshold = threshold
                .ok_or_else(|| Failure::input("--threshold: say how many of the owners have to sign"))?;
            Ok(Owner { threshold, keys: args.owners.clone() })
        }
        Some(set) => {
            Ok(Owner { threshold: args.threshold.unwrap_or(set.owner.threshold), ..set.owner.clone() })
        }
        None => Err(Failure::input(
            "--owner: name the keys that may sign (`nineteen subnet keys new FILE` makes one)",
        )),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Sign {
    /// The set.
    #[arg(default_value = SET_FILE)]
    set: PathBuf,
    /// The owner's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File (mode 0600) whose first line is the key's passphrase; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn sign(args: &Sign) -> Result<(), Failure> {
    let set = read_set(&args.set)?;
    let file = beside(&args.set);
    let mut signatures = read_signatures(&args.set, &set)?;
    let digest = set.digest();
    if signatures.set != digest {
        return Err(at(&file)(&format!(
            "it holds signatures of {}, the set is {digest} by now: remove it and have everybody sign again",
            signatures.set
        )));
    }
    let passphrase = passphrase(args.passphrase_file.as_deref())?;
    let key = read_owner_key(&args.key, passphrase.as_ref()).map_err(Failure::input)?;
    signatures.sign(&key);
    write_new(&file, &signatures.text(), true)?;
    let tally = signatures.tally(&digest, &set.owner).map_err(|e| at(&file)(&e))?;
    let (have, need) = (tally.signers.len(), set.owner.threshold);
    let known = set.owner.keys.contains(&key.hotkey());
    if args.json {
        return print::json(&json!({
            "set": digest, "signed_by": key.hotkey(), "names_this_key": known, "signers": tally.signers, "needed": need,
        }));
    }
    let note = if known { "" } else { "\nthe set does not name this key: it counts if the running set does" };
    print::out(&format!("{digest}\nsigned by {}; {have} of the {need} that it names{note}", key.hotkey()))
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The set.
    #[arg(default_value = SET_FILE)]
    set: PathBuf,
    /// The signed set that it follows; default: what is in force here, else the keys of `[subnet]`, else its own.
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn verify(args: &Verify, config: &Config) -> Result<(), Failure> {
    let set = read_set(&args.set)?;
    let signatures = read_signatures(&args.set, &set)?;
    let running = match &args.after {
        Some(file) => Some(read_set(file)?),
        None => Status::running_set(&config.subnet.followed).map_err(Failure::input)?,
    };
    let running = running.filter(|r| r.digest() != set.digest());
    let configured = trusted(config);
    let (owner, whose) = match &running {
        Some(running) => (&running.owner, "the owner of the set that it follows"),
        None if !configured.keys.is_empty() => (&configured, "the owner that [subnet] trusts at first"),
        None => (&set.owner, "itself alone: nothing is in force here, and [subnet] names no keys"),
    };
    let name = config.subnet.name.as_deref();
    let standing = Standing { running: running.as_ref(), pending: None, owner, name, looked: None };
    let signers = admit(&standing, &set, &signatures, now(config).await).map_err(|e| at(&args.set)(&e))?;
    if args.json {
        return print::json(&json!({ "set": set.digest(), "signers": signers, "held_against": whose }));
    }
    let signers: Vec<String> = signers.iter().map(ToString::to_string).collect();
    print::out(&format!(
        "{} {}: holds against {whose}\n{}\nsigned by {}\ntakes effect at {}",
        set.name,
        set.version,
        set.digest(),
        signers.join(", "),
        set.effective
    ))
}

#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// The set.
    #[arg(default_value = SET_FILE)]
    set: PathBuf,
    /// The folder that a web server serves, or `oci://registry.example/subnets/mine`.
    #[arg(long, value_name = "FOLDER|oci://…")]
    to: String,
    /// The local task set that it was made from; default: `paths.taskset`.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn publish(args: &Publish, config: &Config) -> Result<(), Failure> {
    let (text, set) = (bytes_of(&args.set)?, read_set(&args.set)?);
    let file = beside(&args.set);
    let signatures = if file.exists() { bytes_of(&file)? } else { Vec::new() };
    let local = args.from.as_deref().unwrap_or(&config.paths.taskset);
    // For where its files lie: whether they are the ones that were signed, their digests say.
    let terms = Terms {
        sequence: set.sequence,
        published: set.published,
        effective: set.effective,
        expires_unix_s: set.expires_unix_s,
        notice: set.notice,
        owner: set.owner.clone(),
    };
    let files = compose(local, &config.paths.components(), terms).map_err(Failure::input)?.files;
    let now = now(config).await;
    let refuse = |e: nineteen_taskset::FileError| at(&args.set)(&e);
    let done = match args.to.strip_prefix("oci://") {
        Some(reference) => {
            let signed = registry::Signed { text: &text, signatures: &signatures, files: &files, set: &set };
            registry::publish(&signed, reference, config, now, &refuse).await?
        }
        None => {
            nineteen_taskset::publish(&text, &signatures, &files, Path::new(&args.to), now).map_err(refuse)?
        }
    };
    if args.json {
        return print::json(&done);
    }
    print::out(&format!(
        "{}: sequence {} is published, {} new files with {} bytes",
        args.to, done.sequence, done.new_files, done.new_bytes
    ))
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_read_and_slips_are_not() {
        assert_eq!(duration("36h"), Ok(129_600));
        assert_eq!(duration("90"), Ok(90));
        assert_eq!(duration("2d"), Ok(172_800));
        for bad in ["", "d", "-1d", "1w", "1.5h", "2d3", "99999999999999999999", "4000d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
