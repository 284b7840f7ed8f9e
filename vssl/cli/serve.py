"""The verb serve: model.onnx (and a gallery) -> HTTP API, web page, metrics."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vssl.cli.options import Device, MaxRisk, Precision
from vssl.cli.output import note, say
from vssl.errors import InputError
from vssl.model.shipped import shipped_model

if TYPE_CHECKING:
    from serve.http.settings import Settings

LOOPBACK = ("127.0.0.1", "::1")
EVERYWHERE = "0.0.0.0"


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="[NAME=]SOURCE",
        help="The model file, or triton://HOST:PORT/MODEL on a Triton server. Repeat it with names, as in "
        "--model NAME=FILE or NAME@2=FILE, to serve several; the first is the default. Without it the "
        "small model that comes with vssl is served.",
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 opens it to the network.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="Ask for a key; the file holds one a line.")
]
EngineName = Annotated[
    str,
    typer.Option("--engine", help="onnxruntime, openvino for CPUs with bf16 units, or tensorrt on a GPU."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Cores one process uses; all by default.")
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Serve thumbnails of the gallery's files below this folder only (repeat it for several). Say so for a "
        "gallery that someone else made: it may name any file of this machine.",
    ),
]
Cors = Annotated[
    str | None,
    typer.Option(
        "--cors",
        metavar="ORIGIN,...",
        help="Let web pages of these origins read the answers, as in --cors https://example.org; * for all. "
        "Without it browsers show no other page an answer.",
    ),
]


def serve(
    model: Models = None,
    gallery: Annotated[Path | None, typer.Option("--gallery", help="A gallery to search.")] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 3000,
    api_key_file: KeyFile = None,
    max_risk: MaxRisk = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Server processes.")] = 1,
    device: Device = "auto",
    engine: EngineName = "onnxruntime",
    precision: Precision = None,
    threads: Threads = None,
    show_images: Annotated[
        bool, typer.Option("--show-images", help="Serve thumbnails of the gallery's files.")
    ] = False,
    images: Images = None,
    cors: Cors = None,
    log: Annotated[str, typer.Option("--log", help="Access log on stderr: text, json or off.")] = "off",
) -> None:
    """Serve a model over HTTP: embed images, search a gallery, a page for people at /ui."""
    if importlib.util.find_spec("bentoml") is None:  # first, so that the error names it
        raise ModuleNotFoundError(name="bentoml")
    from serve.http.settings import Settings

    given = {
        "model": "\n".join(map(_absolute, model or [str(shipped_model())])),
        "gallery": gallery and gallery.expanduser().resolve(),
        "api_key_file": api_key_file and api_key_file.expanduser().resolve(),
        "host": "127.0.0.1" if host == "localhost" else host,
        "cors_origins": cors,
        "show_images": "1" if show_images or images else None,
        "images": "\n".join(str(folder.expanduser().resolve()) for folder in images or ()) or None,
        **{"port": port, "workers": workers, "device": device, "engine": engine, "log": log},
        **{"max_risk": max_risk, "precision": precision, "threads": threads},
    }
    variables = {f"VSSL_{name.upper()}": str(value) for name, value in given.items() if value is not None}
    settings = Settings.from_environment({**os.environ, **variables})
    _check_address(settings)
    _greet(settings)
    raise typer.Exit(_run(settings))


def _absolute(model: str) -> str:
    """Return a model as asked for, its file as it is found from any folder."""
    from serve.inference.backends.triton import is_triton
    from serve.inference.model_sources import parse_models

    (wanted,) = parse_models(model)
    if is_triton(wanted.source):
        return model
    return str(replace(wanted, source=str(Path(wanted.source).expanduser().resolve())))


def _check_address(settings: Settings) -> None:
    """Refuse an address that cannot be listened on, before anything is loaded."""
    host, port = settings.host, settings.port
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        raise InputError(
            f"--host: found {host!r}, expected an IP address such as 127.0.0.1 or 0.0.0.0"
        ) from None
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another: --port {port + 1}"
            ) from None


def _greet(settings: Settings) -> None:
    """Check model, gallery and keys before anything listens, and say what to try."""
    from serve.http.state import check

    checked = check(settings)
    for model in checked.models:
        for warning in model.card.calibration.warnings():
            note(f"vssl: warning: {model.name}: {warning}")
    if settings.host not in LOOPBACK and not settings.api_key_file:
        note(
            f"vssl: warning: listening on {settings.host} without an API key: everyone that reaches this port can use "
            "it; add --api-key-file FILE"
        )
    if settings.host not in LOOPBACK and settings.show_images and not settings.images:
        note(
            "vssl: warning: any image file of this machine that the gallery names is shown; where someone else made "
            "it, name the folders to show: --images FOLDER"
        )
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{'127.0.0.1' if settings.host == EVERYWHERE else shown}:{settings.port}"
    for model in checked.models:
        card = model.card
        say(f"model   {model.name} ({card.method}, {card.backbone}), D={card.dim}, id {model.model_id[:12]}")
    if checked.items is not None:
        say(f"gallery {settings.gallery}, {checked.items} items")
    if checked.answered is not None:
        say(f"risk    {settings.max_risk:g}: answers {checked.answered:.0%} of images like the gallery's own")
    say(f"open    {url}/ui (search page), {url}/docs (API)")
    key = " -H 'X-API-Key: ...'" if settings.api_key_file else ""
    route = "embed" if checked.items is None else "search?k=5"
    say(f"try     curl{key} --data-binary @photo.jpg '{url}/{route}'   (photo.jpg: any picture)")
    sys.stdout.flush()


def _bentoml_home(scratch: Path) -> str:
    """Return where BentoML may keep its files: in the home folder, or in `scratch` where there is none to write to."""
    try:
        home = Path("~/bentoml").expanduser()
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return str(home)
    except (OSError, RuntimeError):
        pass
    return str(scratch / "bentoml")


def _run(settings: Settings) -> int:
    """Run BentoML under a supervisor until a signal ends it; return the exit status."""
    import serve.supervisor

    root = Path(serve.supervisor.__file__).resolve().parent.parent  # the workers import this very package
    command = [
        *(sys.executable, "-m", "bentoml", "serve", "serve.service:Vssl", "--working-dir", str(root)),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--timeout-keep-alive", str(settings.keep_alive_s)),
    ]
    with tempfile.TemporaryDirectory(prefix="vssl-serve-") as name:
        folder = Path(name)
        environment = {
            **os.environ,
            **replace(settings, metrics_folder=folder).to_environment(),
            "BENTOML_DO_NOT_TRACK": "true",
            "BENTOML_HOME": os.environ.get("BENTOML_HOME") or _bentoml_home(folder),
            "PYTHONSAFEPATH": "1",  # a person's own serve.py, in the folder they are in, is not ours
        }
        return serve.supervisor.supervise(command, environment, folder=folder, drain_s=settings.drain_s)
