"""Images, Gaussians and options -> requests that either client can send."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vssl.embeddings.batch import Embedded
from vssl.embeddings.gaussian import GaussianEmbedding
from vssl.errors import (
    ImageError,
    InputError,
    require,
    require_path,
    require_real,
    require_text,
    require_whole,
    shown,
)
from vssl.images.image_like import ImageLike, image_bytes, image_list, image_name
from vssl.images.sources import open_source

Where = Mapping[str, Any] | str
"""A filter: {"label": "cat", "year": {">": 2019}}, or the same as JSON text, or label=cat."""
ARROW = "application/vnd.apache.arrow.stream"
CHUNK = 32


@dataclass(frozen=True)
class Call:
    """One HTTP request, ready to be sent by either client."""

    method: str
    path: str
    options: dict[str, Any]


def key_header(api_key: str | None) -> dict[str, str]:
    """Return the header that carries an API key, none for None."""
    require_text(api_key=api_key)
    return {} if api_key is None else {"X-API-Key": api_key}


def check_connection(url: str, timeout_s: float, retries: int) -> None:
    """Raise InputError for what names no server, and for numbers that say nothing."""
    require("url", url, "a text; pass url='http://127.0.0.1:3000'", str)
    require("timeout_s", timeout_s, "a number of seconds; pass timeout_s=60", Real)
    require("retries", retries, "a whole number; pass retries=4", Integral)
    if not url.startswith(("http://", "https://")):
        raise InputError(f"url: found {shown(url)}, expected http:// or https:// before it")
    if not timeout_s > 0:
        raise InputError(f"timeout_s: found {timeout_s}, expected more than 0 seconds; pass timeout_s=60")
    if retries < 0:
        raise InputError(f"retries: found {retries}, expected 0 or more; pass retries=4")


def _files(images: Iterable[ImageLike], names: Sequence[str] | None) -> list[tuple[str, tuple[str, bytes]]]:
    images = image_list(images)
    if not images:
        raise InputError("images: found none, expected at least one")
    known = names or [image_name(image, number) for number, image in enumerate(images)]
    return [("images", (name, image_bytes(image))) for name, image in zip(known, images, strict=True)]


def embed_call(images: Iterable[ImageLike], names: Sequence[str] | None = None) -> Call:
    """Return POST /embed with images under these names, or under their paths; raises InputError for none."""
    return Call("POST", "/embed", {"files": _files(images, names), "headers": {"Accept": ARROW}})


def search_call(
    queries: Iterable[ImageLike] | GaussianEmbedding | Embedded,
    k: int,
    distance: str | None,
    max_uncertainty: float | None,
    where: Where | None,
    model_id: str | None,
) -> Call:
    """Return POST /search with images, with Gaussians, or with what was embedded before and names its model."""
    require_whole(k=k)
    require_text(distance=distance, model_id=model_id)
    require_real(max_uncertainty=max_uncertainty)
    require("where", where, "a mapping or a text; pass where={'label': 'cat'}", Mapping, str, type(None))
    if isinstance(queries, Embedded):
        model_id = model_id or queries.model_id or None
        queries = queries.gaussians
    options: dict[str, Any] = {"k": int(k)}
    options |= {} if distance is None else {"distance": distance}
    options |= {} if max_uncertainty is None else {"max_uncertainty": max_uncertainty}
    if where is not None:
        options["where"] = where if isinstance(where, str) else _json("where", where)
    if isinstance(queries, GaussianEmbedding):
        body = {"mean": queries.mean.tolist(), "variance": queries.variance.tolist(), **options}
        if queries.predicted_uncertainty is not None:
            body["uncertainty"] = queries.predicted_uncertainty.tolist()
        body |= {} if model_id is None else {"model_id": model_id}
        return Call("POST", "/search", {"json": body})

    return Call("POST", "/search", {"files": _files(queries, None), "params": options})


def put_call(id: str, image: ImageLike, label: str | None, metadata: Mapping[str, Any] | None) -> Call:
    """Return PUT /gallery/ID with an image and what is stored with it."""
    require_text(label=label)
    expected = "a mapping of texts, numbers, true, false or null by name; pass metadata={'year': 2026}"
    require("metadata", metadata, expected, Mapping, type(None))
    params = {} if label is None else {"label": label}
    params |= {} if metadata is None else {"metadata": _json("metadata", metadata)}
    headers = {"Content-Type": "application/octet-stream"}
    return Call("PUT", item_path(id), {"content": image_bytes(image), "params": params, "headers": headers})


def _json(name: str, values: Mapping[str, Any]) -> str:
    try:
        # numpy's and pandas' values know their plain one
        return json.dumps(dict(values), default=lambda value: value.item())
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{name}: found {shown(values)}, expected texts, numbers, true, false or null: {error}"
        ) from error


def item_path(id: str) -> str:
    """Return the path of a gallery item, with dots escaped where they alone are a part: `..` would lead to another."""
    require("id", id, "a text", str)
    parts = (
        part.replace(".", "%2E") if part in (".", "..") else quote(part, safe="") for part in id.split("/")
    )
    return f"/gallery/{'/'.join(parts)}"


def chunks(source: str | Path, size: int) -> Iterator[tuple[list[str], list[bytes]]]:
    """Yield names and bytes of a source's images, `size` at a time; an unreadable one is empty."""
    require_path(source=source)
    require_whole(chunk=size)
    opened = open_source(source)
    for start in range(0, len(opened.items), size):
        names, data = [], []
        for row in range(start, min(start + size, len(opened.items))):
            names.append(opened.items[row].id)
            try:
                data.append(opened.read(row))
            except ImageError:
                data.append(b"")  # the server answers for it as for any other bad image
        yield names, data
