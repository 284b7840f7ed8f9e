"""The wheel and the sdist, with each extra, in fresh venvs -> whether what the extra promises runs there.

    python -m benchmarks.install [--package wheel|sdist] [--extras none,client,cpu,all]

Builds both, installs one of them with one extra at a time, and runs what that extra is for: the command line without
any, a search with `cpu`, a training with `train`. `all` is every extra that runs on CPUs in one venv, with a job for
each. Checks a person's typed script with mypy against what is installed without extras, too. `gpu` needs its GPU and
is left out unless it is named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = (
    "import numpy as np; from PIL import Image; from pathlib import Path; r = np.random.default_rng(0)\n"
    "for n in range(40):\n"
    "    p = Path('photos') / 'ab'[n % 2] / f'{n}.png'; p.parent.mkdir(parents=True, exist_ok=True)\n"
    "    Image.fromarray(r.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(p)\n"
)
LOADED = (
    "from datasets import load_dataset\n"
    "assert load_dataset('parquet', data_files='embeddings/part-*.parquet')['train'].num_rows == 40\n"
)
SEARCH = [
    ["python", "-c", PICTURES],
    ["vssl", "extract", "photos", "embeddings"],
    ["vssl", "index", "embeddings", "gallery"],
    ["vssl", "search", "gallery", "photos/a/0.png", "--json"],
    ["python", "-c", "import sys, serve.service; assert 'torch' not in sys.modules"],
]
TRAIN = [
    ["python", "-c", PICTURES],
    ["vssl", "train", "photos", "--out", "run", "--recipe", "small", "--epochs", "1"],
]
EXPORT = [["vssl", "export", "run", "model.onnx"], ["vssl", "verify", "model.onnx"]]
SMOKE = {
    "none": [
        ["vssl", "--help"],
        ["vssl", "doctor"],
        ["python", "-c", "import vssl; print(vssl.__version__)"],
    ],
    "client": [["python", "-c", "import vssl; vssl.Client('http://127.0.0.1:1').close()"]],
    "cpu": SEARCH,
    "gpu": SEARCH,
    "train": TRAIN,
    "hf": [["python", "-c", "import datasets"]],
    "backbones": [["python", "-c", "import timm, huggingface_hub"]],
    "openvino": [["python", "-c", "import openvino"]],
    "triton": [["python", "-c", "import tritonclient.http, tritonclient.grpc"]],
    "ray": [["python", "-c", "import ray.data"]],
    "milvus": [["python", "-c", "import pymilvus"]],
    "demo": [["python", "-c", "import sklearn"]],
    "heif": [["python", "-c", "import pillow_heif"]],
    "plots": [["python", "-c", "import matplotlib"]],
    "map": [["python", "-c", "import openTSNE"]],
}
ON_CPUS = [name for name in SMOKE if name not in ("none", "gpu")]
SMOKE["all"] = [
    *SEARCH,
    *TRAIN,
    *EXPORT,
    ["vssl", "evaluate", "gallery", "embeddings", "--plot", "page.png"],
    ["vssl", "gallery", "map", "gallery"],
    ["vssl", "gallery", "move", "gallery", "milvus:lite.db#photos"],
    ["vssl", "extract", "photos", "by-openvino", "--model", "model.onnx", "--engine", "openvino"],
    ["vssl", "export", "model.onnx", "--triton", "repository"],
    ["python", "-c", "from vssl.images.decode import formats; assert 'HEIF' in formats(), formats()"],
    ["python", "-c", LOADED],
    *(command for name in ("client", "backbones", "triton", "ray", "demo") for command in SMOKE[name]),
]
SCRIPT = (
    "import vssl\n"
    "batch = vssl.load().embed(['a.jpg'])\n"
    "with vssl.Gallery.create('gallery', batch) as gallery:\n"
    "    distance: float = gallery.search(batch, k=3)[0].neighbours[0].distance\n"
    "uncertainty: list[float] = batch.uncertainty.tolist()\n"
)


def call(words: list[str], folder: Path, seconds: float = 1800) -> None:
    """Run a command, without this checkout on its path; print what it said and end where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def build(out: Path) -> tuple[Path, Path]:
    """Build wheel and sdist into a folder; return both."""
    venv = out / "build-venv"
    call([sys.executable, "-m", "venv", str(venv)], out)
    call([str(venv / "bin" / "pip"), "install", "--quiet", "hatchling>=1.27"], out)
    call([str(venv / "bin" / "python"), "-m", "hatchling", "build", "-d", str(out / "dist")], ROOT)
    (wheel,), (sdist,) = (out / "dist").glob("*.whl"), (out / "dist").glob("*.tar.gz")
    return wheel, sdist


def smoke(package: Path, extra: str, out: Path) -> float:
    """Install a package with an extra into a fresh venv, run what it is for, return the seconds that took."""
    started = time.perf_counter()
    home = out / extra
    home.mkdir()
    call([sys.executable, "-m", "venv", "venv"], home)
    bracket = "" if extra == "none" else f"[{','.join(ON_CPUS) if extra == 'all' else extra}]"
    call([str(home / "venv" / "bin" / "pip"), "install", "--quiet", f"{package}{bracket}"], home)
    for words in SMOKE[extra]:
        call([str(home / "venv" / "bin" / words[0]), *words[1:]], home)
    if extra != "none":
        shutil.rmtree(home)  # gigabytes, with torch
    return time.perf_counter() - started


def typed(out: Path) -> None:
    """Check a person's script with mypy --strict against the wheel that is installed without extras."""
    (out / "script.py").write_text(SCRIPT)
    python = str(out / "none" / "venv" / "bin" / "python")
    call([sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "script.py"], out)


def main() -> None:
    """Build, install, run; print one line an extra."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--extras", default=",".join(name for name in SMOKE if name != "gpu"))
    parser.add_argument("--package", choices=("wheel", "sdist"), default="wheel")
    given = parser.parse_args()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if missing := set(declared) - set(SMOKE) - {"dev"}:
        sys.exit(f"extras without a check: {sorted(missing)}")
    with tempfile.TemporaryDirectory(prefix="vssl-install-") as folder:
        out = Path(folder)
        wheel, sdist = build(out)
        print(
            f"{wheel.name} {wheel.stat().st_size / 1e6:.1f} MB, {sdist.name} {sdist.stat().st_size / 1e6:.1f} MB"
        )
        for extra in given.extras.split(","):
            print(
                f"{extra:<12} {smoke(wheel if given.package == 'wheel' else sdist, extra, out):6.0f} s",
                flush=True,
            )
            if extra == "none":
                typed(out)
                print("typed        a person's script passes mypy --strict", flush=True)


if __name__ == "__main__":
    main()
