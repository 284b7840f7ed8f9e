"""What parses, under random damage: requests of every route, and flipped bytes in every kind of file.

    python -m benchmarks.fuzz requests [--count 100000]
    python -m benchmarks.fuzz flips [--count 2000]

Requests: well-formed ones of every route are changed at random and sent; no answer may be a 5xx, take over ten
seconds or make the server's memory grow. Flips: one bit is flipped in a file, which is read as its verb reads it; it
must be refused by an error of ours (`refused`) or read with the same result (`harmless`), never with another one
(`silent`) or by an error of anyone else's (`traceback`).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.serving.process import server
from vssl.errors import VsslError
from vssl.model.shipped import CIFAR10, shipped_model

Random = np.random.Generator
Request = tuple[str, str, dict[str, str], bytes]
SLOW_S = 10.0


def picture(seed: int, side: int = 48) -> bytes:
    """Return a small JPEG."""
    random = np.random.default_rng(seed)
    sink = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (side // 8, side // 8, 3), np.uint8)).resize((side, side)).save(
        sink, "JPEG"
    )
    return sink.getvalue()


def requests(model: str) -> list[Request]:
    """Return one well-formed request of every kind."""
    image, text = picture(0), base64.b64encode(picture(1)).decode()
    uri, js = f"data:image/jpeg;base64,{text}", {"Content-Type": "application/json"}
    where = {"or": [{"label": ["a", "b"]}, {"year": {">": 2000}}, {"not": {"id": "x"}}]}
    form = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + picture(n) + b"\r\n"
        for n in range(2)
    )
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 3072}}]}).encode()
    search = {
        "images": [{"base64": text}],
        "k": 3,
        "where": where,
        "distance": "cosine",
        "max_uncertainty": 0.9,
    }
    return [
        ("POST", "/embed?encoding_format=base64", {"Content-Type": "image/jpeg"}, image),
        ("POST", "/embed", {"Content-Type": "multipart/form-data; boundary=B"}, form + b"--B--\r\n"),
        (
            "POST",
            "/embed",
            js,
            json.dumps({"images": [{"base64": text}, {"url": uri, "name": "n"}]}).encode(),
        ),
        ("POST", "/search?k=2&distance=expected&where=label%3Da", {}, image),
        ("POST", "/search", js, json.dumps(search).encode()),
        ("POST", "/search", js, json.dumps({"mean": [0.1] * 64, "variance": [0.1] * 64}).encode()),
        ("PUT", "/gallery/fuzz/a%20b?label=cat", {"Content-Type": "image/jpeg"}, image),
        ("PUT", "/gallery/fuzz", js, json.dumps({**search, "metadata": {"year": 1}}).encode()),
        ("GET", "/gallery/fuzz?encoding_format=base64", {}, b""),
        ("DELETE", "/gallery/fuzz", {}, b""),
        ("GET", "/thumbnails/fuzz", {}, b""),
        (
            "POST",
            "/v1/embeddings",
            js,
            json.dumps({"model": model, "input": [uri], "dimensions": 8}).encode(),
        ),
        (
            "POST",
            f"/v2/models/{model}/infer",
            js,
            json.dumps({"inputs": [{**tensor, "data": [1] * 3072}]}).encode(),
        ),
        (
            "POST",
            f"/v2/models/{model}/infer",
            {"Inference-Header-Content-Length": str(len(head))},
            head + bytes(3072),
        ),
        *[
            ("GET", path, {}, b"")
            for path in ("/gallery", "/model", "/v1/models", "/v2", "/metrics", "/openapi.json")
        ],
    ]


WORDS = (
    b"null",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"-1",
    b"1e999",
    b"9" * 400,
    b"\xff",
    b"\0",
    b"%0A",
    b"%00",
    b"\r\n",
    b",",
)


def changed(data: bytes, random: Random) -> bytes:
    """Return bytes with one to four random edits."""
    work = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(work) + 1))
        end = min(len(work), at + int(random.integers(1, 40)))
        match random.integers(6):
            case 0 if at < len(work):
                work[at] ^= 1 << int(random.integers(8))
            case 1:
                del work[at:end]
            case 2:
                work[at:at] = WORDS[int(random.integers(len(WORDS)))]
            case 3:
                work[at:at] = work[at:end] * int(random.integers(1, 50))
            case 4:
                del work[at:]
            case _:
                work[at:at] = random.bytes(int(random.integers(1, 8)))
    return bytes(work)


def fuzz_requests(count: int, seed: int) -> None:
    """Send changed requests to a server of our own, and print what came back."""
    random, answers, slow = np.random.default_rng(seed), Counter[int](), 0
    with tempfile.TemporaryDirectory() as name:
        gallery = picture_gallery(Path(name))
        command = [
            sys.executable,
            "-m",
            "vssl",
            "serve",
            "--model",
            str(shipped_model(CIFAR10)),
            "--gallery",
            str(gallery),
            "--show-images",
            "--port",
        ]
        with (
            server(command) as (port, process),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
        ):
            family = [process, *process.children(recursive=True)]
            kinds = requests(http.get("/v1/models").json()["data"][0]["id"])
            memory: list[float] = []
            for number in range(count):
                method, path, headers, body = kinds[int(random.integers(len(kinds)))]
                what = random.integers(4)
                if what == 0:
                    path = "/" + changed(path[1:].encode(), random).decode("latin-1").replace("#", "")
                elif what == 1 and headers:
                    headers = {n: changed(v.encode(), random).decode("latin-1") for n, v in headers.items()}
                if what > 1 or not headers:
                    body = changed(body, random)
                begun = time.perf_counter()
                try:
                    status = http.request(method, path, headers=headers, content=body).status_code
                except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeEncodeError, ValueError):
                    continue  # the client does not send it
                answers[status] += 1
                slow += time.perf_counter() - begun > SLOW_S
                if status >= 500:
                    print("5xx", status, method, path[:200], headers, body[:300])
                if number % max(1, count // 20) == 0:
                    memory.append(sum(p.memory_info().rss for p in family if p.is_running()) / 2**20)
    print(f"{sum(answers.values())} requests, seed {seed}: {dict(sorted(answers.items()))}")
    print(f"5xx: {sum(n for s, n in answers.items() if s >= 500)}, over {SLOW_S:g} s: {slow}")
    print("memory of the server, MiB:", *[f"{value:.0f}" for value in memory])


def _pictures(folder: Path) -> Path:
    for number in range(24):
        path = folder / "in" / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return folder / "in"


def picture_gallery(folder: Path) -> Path:
    """Make a gallery of 24 pictures in a folder."""
    from index.gallery.folder.build import build_gallery
    from serve.extraction.extract import extract

    extract(_pictures(folder), folder / "embeddings", model=shipped_model(CIFAR10))
    build_gallery(folder / "embeddings", folder / "gallery", distance="cosine")
    return folder / "gallery"


def _seen(*values: object) -> str:
    """Return one text for what was read."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(np.asarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()


def _readers(folder: Path) -> dict[str, tuple[Path, Callable[[], str]]]:
    """Return by kind of file: one file of it, and how it is read."""
    from index.answers.metadata import read_metadata
    from index.gallery.folder.gallery import FolderGallery
    from train.loop.run import train_images
    from train.state.checkpoint import load_checkpoint
    from vssl.embeddings.store import read_embeddings
    from vssl.images.sources import open_source
    from vssl.model.seal import read_metadata as entries
    from vssl.model.seal import read_sealed

    gallery, out, images = picture_gallery(folder), folder / "embeddings", folder / "in"
    model = Path(shutil.copy(shipped_model(CIFAR10), folder / "model.onnx"))
    train_images(str(images), folder / "run", options={"epochs": 0, "size": 16}, device="cpu", threads=1)
    (folder / "list.jsonl").write_text(
        "\n".join(json.dumps({"path": f"{n}.jpg", "id": n, "label": n}) for n in "abc")
    )
    (folder / "meta.csv").write_text("id,year,country\n" + "".join(f"{n},{2000 + n},NA\n" for n in range(50)))

    def embeddings() -> str:
        found = read_embeddings(out)
        return _seen(
            found.rows.ids, found.rows.labels, found.rows.gaussians.mean, found.failures, found.model_id
        )

    def searched() -> str:
        with FolderGallery.open(gallery, read_only=True) as opened:
            query = read_embeddings(out).rows.gaussians[:2]
            found = opened.search(query, 5)
            return _seen(
                [[(n.id, n.label, round(n.distance, 5)) for n in r.neighbours] for r in found], opened.card
            )

    def checkpoint() -> str:
        found = load_checkpoint(folder / "run")
        return _seen(*(v.numpy() for v in found.student.values()), found.summary, found.config)

    derived = next(path for path in (gallery / "derived").rglob("rows.npy"))
    return {
        "part": (out / "part-00000.parquet", embeddings),
        "failures": (out / "failures.parquet", embeddings),
        "manifest": (out / "manifest.json", embeddings),
        "model": (model, lambda: _seen(entries(read_sealed(model)))),
        "checkpoint": (folder / "run" / "checkpoint.pt", checkpoint),
        "store": (gallery / "store.db", searched),
        "derived rows": (derived, searched),
        "derived manifest": (derived.with_name("manifest.json"), searched),
        "list": (folder / "list.jsonl", lambda: _seen(open_source(f"list:{folder / 'list.jsonl'}").items)),
        "metadata": (folder / "meta.csv", lambda: _seen(read_metadata(folder / "meta.csv"))),
    }


SELF_EVIDENT = ("list", "metadata")
"""Files that a person writes: they carry no checksum, and another text is another meaning."""


def fuzz_flips(count: int, seed: int) -> None:
    """Flip bits in every kind of file, and print what reading each gave."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        for kind, (path, read) in _readers(Path(name)).items():
            whole, sound, results = path.read_bytes(), read(), Counter[str]()
            for _ in range(count):
                data = bytearray(whole)
                data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
                path.write_bytes(data)
                try:
                    same = read() == sound
                    results["harmless" if same else "another text" if kind in SELF_EVIDENT else "silent"] += 1
                except VsslError:
                    results["refused"] += 1
                except Exception as error:  # what a person would see as a traceback
                    results["traceback"] += 1
                    print("traceback", kind, type(error).__name__, str(error)[:200])
            path.write_bytes(whole)
            print(
                f"{kind:<18} {len(whole):>9} bytes, {count} flips, seed {seed}: {dict(sorted(results.items()))}"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("requests", "flips"))
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "requests":
        fuzz_requests(given.count or 100_000, given.seed)
    else:
        fuzz_flips(given.count or 2000, given.seed)
