//! The inference library, out of the wheel that carries it.
//!
//! `ort` loads `libonnxruntime` at run time; the Python wheel of the same version has it inside, comes from the
//! package index that the machine already uses, and its digest is pinned here. See `docs/adr/0004`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::{RESUMES, Site, python};
use crate::cache;
use crate::child;
use crate::progress::Progress;
use crate::stamp::{self, Key};

/// The one version that `host/checking` accepts.
const VERSION: &str = "1.31.1";

/// A wheel for one kind of machine. The Python tag does not matter (only the library inside is used), so each
/// machine has exactly one, whatever Python it runs.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    package: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

/// Pinned by digest: a wheel that the index serves under the same name with other bytes is refused.
const WHEELS: [Wheel; 3] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        package: "onnxruntime",
        platform: "manylinux_2_28_x86_64",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        package: "onnxruntime",
        platform: "manylinux_2_28_aarch64",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    },
    Wheel {
        os: "linux",
        arch: "x86_64",
        package: "onnxruntime-gpu",
        platform: "manylinux_2_28_x86_64",
        sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
    },
];

/// Copies the libraries and the licences out of a wheel, flat, into a folder.
const UNPACK: &str = "
import pathlib, shutil, sys, zipfile
wheel, folder = zipfile.ZipFile(sys.argv[1]), pathlib.Path(sys.argv[2])
for item in wheel.infolist():
    path = pathlib.PurePosixPath(item.filename)
    library = path.parent.name == 'capi' and path.name.startswith('lib')
    if library or path.name in ('LICENSE', 'ThirdPartyNotices.txt'):
        with wheel.open(item) as source, open(folder / path.name, 'wb') as target:
            shutil.copyfileobj(source, target)
";

impl Wheel {
    fn pick(os: &str, arch: &str, gpu: bool) -> Result<&'static Wheel> {
        let package = if gpu { "onnxruntime-gpu" } else { "onnxruntime" };
        let fits = |wheel: &&Wheel| wheel.os == os && wheel.arch == arch && wheel.package == package;
        match WHEELS.iter().find(fits) {
            Some(wheel) => Ok(wheel),
            None => bail!(
                "no {package} {VERSION} is pinned for {os} on {arch}: install that library yourself and name it in \
                 ORT_DYLIB_PATH, then set up the rest with `cargo xtask setup --only plugins` and `--only models`"
            ),
        }
    }

    fn file(&self) -> String {
        format!("{}-{VERSION}-cp312-cp312-{}.whl", self.package.replace('-', "_"), self.platform)
    }
}

/// Where the library of a kind lies.
fn place(site: &Site, gpu: bool) -> PathBuf {
    site.cache.path("onnxruntime").join(format!("{VERSION}-{}", if gpu { "gpu" } else { "cpu" }))
}

/// The SHA-256 of a file.
fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("{} cannot be read", path.display()))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Accepts a file with the pinned digest; any other is deleted, alone, so that the next run fetches it anew.
fn verify(path: &Path, expected: &str) -> Result<()> {
    let found = digest(path)?;
    if found == expected {
        return Ok(());
    }
    fs::remove_file(path).with_context(|| format!("{} cannot be deleted", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    bail!(
        "{name} is not the file that was pinned (sha256 {found}, expected {expected}) and was deleted: your package \
         index or something before it serves other bytes; compare with another network, then run it again"
    )
}

/// Fetches and unpacks the library if it is not there. Tells whether there was anything to do.
pub(crate) fn ensure(site: &Site, gpu: bool) -> Result<bool> {
    let wheel = Wheel::pick(std::env::consts::OS, std::env::consts::ARCH, gpu)?;
    let key = Key::new("onnxruntime/1").text(wheel.sha256).finish();
    let step = if gpu { "onnxruntime-gpu" } else { "onnxruntime-cpu" };
    if stamp::fresh(&site.cache, step, &key) {
        return Ok(false);
    }
    python::ensure(site)?;
    stamp::forget(&site.cache, step);
    let log = site.cache.log("onnxruntime");
    let size = if gpu {
        "256 MB, CUDA and TensorRT; CUDA 13 and cuDNN 9 themselves stay yours to install"
    } else {
        "24 MB"
    };
    let progress = Progress::start(format!(
        "{} {VERSION}: runs the models ({size}), from your package index",
        wheel.package
    ));

    let file = site.cache.path("wheels").join(wheel.file());
    if !(file.is_file() && verify(&file, wheel.sha256).is_ok()) {
        fetch(site, wheel, &progress, &log)
            .with_context(|| format!("{}=={VERSION} could not be fetched; {RESUMES}", wheel.package))?;
        ensure!(file.is_file(), "pip fetched another file than {}: see {}", wheel.file(), log.display());
        verify(&file, wheel.sha256)?;
    }

    progress.detail("unpacking");
    let folder = place(site, gpu);
    let made = cache::unfinished(&folder);
    fs::create_dir_all(&made).with_context(|| format!("{} cannot be made", made.display()))?;
    let mut unpack = Command::new(site.cache.python());
    child::quietly(unpack.args(["-I", "-c", UNPACK]).arg(&file).arg(&made), &progress, &log, None)?;
    let library = format!("libonnxruntime.so.{VERSION}");
    ensure!(made.join(&library).is_file(), "{} has no {library} inside", wheel.file());
    cache::settle(&made, &folder)?;
    stamp::write(&site.cache, step, &key, &[folder])?;
    progress.done("digest verified");
    Ok(true)
}

fn fetch(site: &Site, wheel: &Wheel, progress: &Progress, log: &Path) -> Result<()> {
    let wheels = site.cache.path("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("{} cannot be made", wheels.display()))?;
    let mut pip = python::pip(site);
    pip.args(["download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"])
        .args(["--implementation=cp", "--python-version=3.12", "--platform", wheel.platform])
        .arg(format!("{}=={VERSION}", wheel.package))
        .arg("-d")
        .arg(&wheels);
    child::quietly(&mut pip, progress, log, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_pinned_by_a_digest_and_named_as_the_index_names_it() {
        for wheel in &WHEELS {
            assert_eq!(hex::decode(wheel.sha256).unwrap().len(), 32);
        }
        let gpu = Wheel::pick("linux", "x86_64", true).unwrap();
        assert_eq!(gpu.file(), "onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl");
    }

    #[test]
    fn a_machine_without_a_wheel_is_told_the_way_around() {
        let Err(error) = Wheel::pick("plan9", "mips", false) else { panic!("there is no such wheel") };
        assert!(error.to_string().contains("ORT_DYLIB_PATH"), "{error}");
        assert!(Wheel::pick("linux", "aarch64", true).is_err(), "no wheel has CUDA for aarch64");
    }

    #[test]
    fn a_wheel_with_other_bytes_is_refused_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let bad = folder.path().join("onnxruntime-1.whl");
        let other = folder.path().join("other.whl");
        fs::write(&bad, "evil").unwrap();
        fs::write(&other, "good").unwrap();
        let expected = hex::encode(Sha256::digest("honest"));
        let error = verify(&bad, &expected).unwrap_err().to_string();
        assert!(error.contains("onnxruntime-1.whl") && error.contains(&expected), "{error}");
        assert!(error.contains(&hex::encode(Sha256::digest("evil"))), "{error}");
        assert!(!bad.exists() && other.exists());
    }

    #[test]
    fn the_pinned_wheel_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.whl");
        // Longer than one buffer, so that the loop is seen to go on.
        let bytes = vec![7; (1 << 20) + 5];
        fs::write(&file, &bytes).unwrap();
        verify(&file, &hex::encode(Sha256::digest(&bytes))).unwrap();
        assert!(file.exists());
    }
}
