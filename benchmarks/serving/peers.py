"""The same model behind other servers, each written as its own documentation suggests.

    python -m benchmarks.serving.peers {starlette,bentoml} MODEL PORT

All read one image a request and answer its mean and variance as JSON lists. Preprocessing is
plain Pillow with the recipe's numbers.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

OUTPUTS = ["mean", "variance"]


def session(path: str) -> ort.InferenceSession:
    """Load the model with default options but for idle threads that spin."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pixels(picture: Image.Image, size: int) -> np.ndarray:
    """Resize the shorter side to 8/7 of the size and crop the centre, or take it as it is."""
    picture = picture.convert("RGB")
    if picture.size != (size, size):
        short = round(size * 8 / 7)
        scale = short / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
        )
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    return np.asarray(picture)


def side(model: ort.InferenceSession) -> int:
    """Return the side of the model's input."""
    return int(model.get_inputs()[0].shape[1])


def starlette_app(path: str) -> Any:
    """A bare handler: read the body, decode and run in the thread pool, no batching."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    model = session(path)
    size = side(model)

    def work(data: bytes) -> dict[str, list[float]]:
        images = pixels(Image.open(io.BytesIO(data)), size)[None]
        mean, variance = model.run(OUTPUTS, {"images": images})
        return {"mean": mean[0].tolist(), "variance": variance[0].tolist()}

    async def embed(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(work, await request.body()))

    return Starlette(routes=[Route("/embed", embed, methods=["POST"])])


BENTO = """
import os
from pathlib import Path
import bentoml
import numpy as np
from PIL import Image
from benchmarks.serving.peers import OUTPUTS, pixels, session, side

@bentoml.service(name="plain", traffic={"timeout": 60})
class Plain:
    def __init__(self) -> None:
        self.model = session(os.environ["PEER_MODEL"])
        self.side = side(self.model)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10000, route="/embed")
    def embed(self, images: list[Image.Image]) -> list[dict]:
        mean, variance = self.model.run(OUTPUTS, {"images": np.stack([pixels(i, self.side) for i in images])})
        return [{"mean": m.tolist(), "variance": v.tolist()} for m, v in zip(mean, variance)]
"""


def main() -> None:
    """Run one peer until it is ended."""
    kind, model, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if kind == "starlette":
        import uvicorn

        uvicorn.run(starlette_app(model), host="127.0.0.1", port=port, log_level="warning")
    elif kind == "bentoml":
        folder = Path(model).resolve().parent
        (folder / "plain_bento.py").write_text(BENTO)
        root = str(Path(__file__).resolve().parents[2])
        environment = {
            **os.environ,
            "PEER_MODEL": str(Path(model).resolve()),
            "BENTOML_DO_NOT_TRACK": "true",
            "PYTHONPATH": root,
            "BENTOML_HOME": str(folder / "bentoml-home"),
        }
        command = [
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            "plain_bento:Plain",
            "--host",
            "127.0.0.1",
            "--port",
        ]
        os.chdir(folder)
        os.execve(sys.executable, [*command, str(port)], environment)


if __name__ == "__main__":
    main()
