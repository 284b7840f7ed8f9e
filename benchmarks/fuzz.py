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
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from benchmarks.fuzz_files import fuzz_flips, picture, picture_gallery
from benchmarks.serving.process import server
from vssl.model.shipped import CIFAR10, shipped_model

Random = np.random.Generator
Request = tuple[str, str, dict[str, str], bytes]
SLOW_S = 10.0


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
