"""Coverage-guided fuzzing (atheris) of what parses: bytes -> a value or an error of ours, and nothing else.

    pip install atheris
    python -m benchmarks.fuzz_parsers multipart [--seconds 600] [--corpus FOLDER]

A parser may return or raise one of our errors. Any other exception, more than ten seconds or more than two GB end
the run with a traceback and the input that did it (`crash-*`, `timeout-*`, `oom-*` in the folder). Well-formed inputs
begin the corpus; what reaches new code is added to it. Files that carry a checksum (models, checkpoints, embeddings,
galleries) are refused before anything parses them: `python -m benchmarks.fuzz flips`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
from PIL import Image

with atheris.instrument_imports(include=["serve", "vssl", "index", "python_multipart"]):
    from index.answers.filters import parse_filter, parse_where, to_sql
    from index.answers.metadata import read_metadata
    from serve.http.errors import RequestError
    from serve.http.io.body import located
    from serve.http.io.multipart import read_parts
    from serve.http.io.schemas import EmbedRequest, PutRequest, SearchOptions, SearchRequest
    from serve.http.io.validation import from_json, from_text
    from serve.http.routes.kserve import InferRequest
    from serve.http.routes.openai import EmbeddingsRequest
    from vssl.errors import VsslError
    from vssl.images.preprocess import Preprocess, load_image
    from vssl.images.sources import open_source

Parser = Callable[[bytes], object]

EMBED = b'{"images": [{"base64": "AA==", "name": "n"}], "encoding_format": "base64"}'
SEARCH = b'{"images": [{"url": "data:,x"}], "k": 3, "where": {"or": [{"label": ["a"]}, {"n": {">": 2}}]}}'
GAUSSIAN = b'{"mean": [0.5, 1], "variance": [1, 2], "max_uncertainty": 0.5, "distance": "cosine"}'
INFER = (
    b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [1, 2], '
    b'"parameters": {"binary_data_size": 12}}], "outputs": [{"name": "mean"}]}'
)
OPENAI = b'{"model": "m", "input": [{"type": "image_url", "image_url": {"url": "data:,x"}}], "dimensions": 8}'
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="images"; filename="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    b'AA==\r\n--B\r\nContent-Disposition: form-data; name="k"\r\n\r\n3\r\n--B--\r\n'
)
WHERE = [b"label=cat", b'{"and": [{"a": {"is": "2"}}, {"not": {"b": null}}, {"c": {">=": 1.5, "<": 9}}]}']
LIST = [b"a.jpg\nb.jpg\n", b'{"path": "a.jpg", "id": "x", "label": 3}\n', "\ufeffä.jpg\r\n".encode("utf-16")]
TABLE = [b"id,year,country\na,2001,NA\n", b"\xef\xbb\xbfid;n\nb;1,5\n", b"id\tt\nc\ttrue\n"]
JSON_BODIES = (EmbedRequest, SearchRequest, PutRequest, InferRequest, EmbeddingsRequest)


def encoded(kind: str) -> bytes:
    """Return a small picture in a format."""
    sink, values = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    Image.fromarray(values).save(sink, kind)
    return sink.getvalue()


def json_body(data: bytes) -> object:
    """Read a body as the route that its first byte chooses."""
    return from_json(JSON_BODIES[data[0] % len(JSON_BODIES)], data[1:]) if data else None


def query(data: bytes) -> object:
    """Read a query's pairs."""
    pairs = [part.partition("=") for part in data.decode("utf-8", "surrogateescape").split("&")]
    return from_text(SearchOptions, [(name, value) for name, _, value in pairs])


def form(data: bytes) -> object:
    """Read a form; the parts together are no larger than the body."""
    parts = read_parts(
        data, b"multipart/form-data; boundary=B", most=8, too_many=RequestError(413, "many", "many")
    )
    assert sum(len(part.data) for part in parts) <= len(data)
    return [(part.name, part.filename) for part in parts]


def filtered(data: bytes) -> object:
    """Read a filter, and let SQLite run what it becomes."""
    sql, parameters = to_sql(parse_filter(parse_where(data.decode("utf-8", "replace"))))
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE items (row INTEGER, id TEXT, label TEXT, uncertainty REAL, metadata TEXT)")
        db.execute("""INSERT INTO items VALUES (0, 'a', 'cat', 0.5, '{"n": 1}')""")
        return db.execute(f"SELECT {sql} FROM items", parameters).fetchall()


def file_of(folder: Path, name: str, read: Callable[[Path], object]) -> Parser:
    """Return a parser of bytes that reads them from a file, as a person's."""

    def parse(data: bytes) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return parse


def parsers(folder: Path) -> dict[str, tuple[Parser, list[bytes]]]:
    """Return by name: the parser, and what begins its corpus."""
    preprocess = Preprocess(size=8, resize=8)
    bodies = [bytes([n]) + b for n, b in enumerate((EMBED, SEARCH, SEARCH, INFER, OPENAI))]
    uri = b"data:image/png;base64,AA=="
    return {
        "multipart": (form, [FORM]),
        "json": (json_body, [*bodies, b"\1" + GAUSSIAN]),
        "query": (query, [b"k=3&where=label%3Da&distance=cosine"]),
        "uri": (lambda data: located(data.decode("utf-8", "replace")), [uri, b"data:,%41", b"https://a/b"]),
        "filter": (filtered, WHERE),
        "list": (file_of(folder, "list.txt", lambda path: open_source(f"list:{path}").items), LIST),
        "table": (file_of(folder, "table.csv", read_metadata), TABLE),
        "picture": (
            lambda data: load_image(data, preprocess),
            [encoded(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")],
        ),
    }


def main() -> None:
    """Fuzz one parser; the last line says how many inputs it read and how large the corpus became."""
    choices = sorted(parsers(Path()))
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("parser", choices=choices)
    cli.add_argument("--seconds", type=int, default=600)
    cli.add_argument("--corpus", type=Path)
    given = cli.parse_args()
    folder = Path(tempfile.mkdtemp())
    corpus = given.corpus or folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    parse, seeds = parsers(folder)[given.parser]
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        with contextlib.suppress(VsslError):
            parse(data)

    bounds = [f"-max_total_time={given.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    print(json.dumps({"parser": given.parser, "seconds": given.seconds, "corpus": str(corpus)}), flush=True)
    atheris.Setup([sys.argv[0], *bounds, f"-artifact_prefix={corpus.parent}/", str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
