"""The same model behind LitServe with its batching; a module of its own, so that its workers can import it.

    python -m benchmarks.serving.lit_peer MODEL PORT

Takes JSON {"image": base64}. (LitServe reads annotations at run time, hence no future import.)
"""

import base64
import io
import sys
from typing import Any

import litserve
import numpy as np
from PIL import Image
from starlette.requests import Request

from benchmarks.serving.peers import OUTPUTS, pixels, session, side


class Api(litserve.LitAPI):
    """Decode in decode_request, predict on a batch."""

    model_path = ""

    def setup(self, device: str) -> None:
        """Load the model in a worker."""
        self.model = session(self.model_path)
        self.side = side(self.model)

    def decode_request(self, request: Request) -> np.ndarray:
        """Return the pixels of one request."""
        return pixels(Image.open(io.BytesIO(base64.b64decode(request["image"]))), self.side)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Stack."""
        return np.stack(inputs)

    def predict(self, images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Run the model."""
        mean, variance = self.model.run(OUTPUTS, {"images": images})
        return list(zip(mean, variance, strict=True))

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Pass on."""
        return output

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        """Return JSON lists."""
        return {"mean": output[0].tolist(), "variance": output[1].tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.005, api_path="/embed")
    api.model_path = sys.argv[1]
    server = litserve.LitServer(api, accelerator="cpu", devices=1)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")
