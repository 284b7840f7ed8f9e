"""VSSL_* environment variables -> Settings: all that the server can be configured with, checked once.

`vssl serve` writes these variables from its options; `bentoml serve serve.service:Vssl`,
a Bento and a container read the same ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from serve.http.middleware.cors import parse_origins
from serve.inference.model_sources import NamedModel, parse_models
from vssl.errors import InputError
from vssl.images.decode import PILLOW_PIXEL_CAP, DecodeLimits
from vssl.model.shipped import shipped_model

PREFIX = "VSSL_"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """What one server process serves and within which bounds.

    model: the ONNX file, or triton://HOST:PORT/MODEL; several as NAME=SOURCE, one a line
        (`serve.inference.model_sources`). gallery: a gallery folder to search, or None.
    device, engine, precision, threads: see `serve.inference.engine.Engine.open`; threads None means all usable
        cores, precision None what the engine and the file make of it.
    workers: server processes. host, port: only for the line that says where to try it.
    api_key_file: one key a line; None leaves the server open to everyone that can reach it.
    max_risk: the share of a search's answers that may have a wrong nearest image; the others are marked
        `abstain`. None marks nothing.
    show_images: whether thumbnails of the gallery's files are served. images: folders that these files must lie
        below, one a line; None takes any that the gallery names. They imply show_images.
    max_body_bytes: one request's body. max_items: images in one request. max_pixels: of one
        image, read from its header. max_queue: images waiting in one process; beyond it 429.
    max_held_bytes: request bodies held in memory by one process; beyond it 429.
    deadline_s: seconds from the last byte of a request to its answer; beyond it 504.
    body_timeout_s: seconds a client may take to send a request's body; beyond it 408.
    keep_alive_s: whole seconds that a connection may idle between two requests; `vssl serve` tells uvicorn.
    drain_s: seconds from SIGTERM, in which the server is not ready and closes connections, until it is told to end.
    tracing: whether requests pass through BentoML's OpenTelemetry middleware.
    metrics_folder: where the workers of one server share their counts; None is the folder that
        BentoML gives its workers.
    log: `text`, `json` or `off`, the form of the access log on stderr.
    cors_origins: ORIGIN,... whose web pages may read the answers, `*` for all; None lets none.
    """

    model: str
    gallery: Path | None = None
    device: str = "auto"
    engine: str = "onnxruntime"
    precision: str | None = None
    threads: int | None = None
    workers: int = 1
    host: str = "127.0.0.1"
    port: int = 3000
    api_key_file: Path | None = None
    max_risk: float | None = None
    show_images: bool = False
    images: str | None = None
    max_body_bytes: int = 64 * MIB
    max_items: int = 256
    max_pixels: int = 64_000_000
    max_queue: int = 1024
    max_held_bytes: int = 512 * MIB
    deadline_s: float = 30.0
    body_timeout_s: float = 30.0
    keep_alive_s: int = 120
    drain_s: float = 5.0
    tracing: bool = False
    metrics_folder: Path | None = None
    log: str = "off"
    cors_origins: str | None = None

    def __post_init__(self) -> None:
        for name, found in vars(self).items():
            if type(found) in (int, float) and name not in ("drain_s", "max_risk") and not found > 0:
                raise InputError(f"{PREFIX}{name.upper()}: found {found}, expected more than 0")
        if not self.drain_s >= 0:
            raise InputError(f"{PREFIX}DRAIN_S: found {self.drain_s}, expected 0 or more")
        if not self.max_pixels <= PILLOW_PIXEL_CAP:
            raise InputError(
                f"{PREFIX}MAX_PIXELS: found {self.max_pixels}, expected at most {PILLOW_PIXEL_CAP}"
            )
        if self.max_risk is not None and not 0 < self.max_risk < 1:
            raise InputError(
                f"{PREFIX}MAX_RISK: found {self.max_risk}, expected a share between 0 and 1, as in 0.05"
            )
        parse_models(self.model)
        if self.cors_origins is not None:
            parse_origins(self.cors_origins)
        if self.log not in ("text", "json", "off"):
            raise InputError(f"{PREFIX}LOG: found {self.log!r}, expected text, json or off")

    @property
    def places(self) -> tuple[str, ...]:
        """Where this server's files lie, as texts that no answer should name; the longest first."""
        given = [
            self.gallery,
            self.api_key_file,
            *(Path(m.source) for m in self.models if "://" not in m.source),
        ]
        found = {str(path.parent) + os.sep for path in given if path is not None and len(path.parts) > 1}
        return tuple(sorted(found - {os.sep}, key=len, reverse=True))

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """The folders that pictures are shown of; none where the gallery's own paths say."""
        return tuple(Path(line).absolute() for line in (self.images or "").splitlines() if line.strip())

    @property
    def models(self) -> tuple[NamedModel, ...]:
        """The models to serve, the default one first."""
        return parse_models(self.model)

    @property
    def limits(self) -> DecodeLimits:
        """The bounds of one image."""
        return DecodeLimits(max_bytes=self.max_body_bytes, max_pixels=self.max_pixels)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read VSSL_MODEL, VSSL_GALLERY, ... (a field's name in capitals).

        Without a model the package's own is served. Raises InputError for a value of the wrong form.
        """
        values: dict[str, object] = {}
        for field in fields(cls):
            text = environment.get(PREFIX + field.name.upper(), "").strip()
            if text:
                values[field.name] = _parse(PREFIX + field.name.upper(), str(field.type), text)
        values.setdefault("model", str(shipped_model()))
        if "images" in values:
            values.setdefault("show_images", True)
        return cls(**values)  # type: ignore[arg-type]

    def to_environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads back to the same settings."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            PREFIX + name.upper(): str(int(value)) if isinstance(value, bool) else str(value)
            for name, value in values.items()
            if value is not None
        }


def _parse(variable: str, kind: str, text: str) -> object:
    kind = kind.removesuffix(" | None")
    try:
        if kind == "bool":
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        return {"Path": Path, "int": int, "float": float, "str": str}[kind](text)
    except (KeyError, ValueError):
        expected = {"bool": "0 or 1", "int": "a whole number", "float": "a number"}[kind]
        raise InputError(f"{variable}: found {text!r}, expected {expected}") from None
