"""One version of an exported model on Triton's Python backend: uint8 images -> Gaussians.

`vssl export --triton REPOSITORY --triton-backend python` puts this file into the repository as
model.py, next to the model.onnx that it runs with ONNX Runtime on the CPU: for builds of Triton
without the onnxruntime backend. It needs numpy and onnxruntime, and nothing of vssl.
Shape letters: N images, S side.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """What Triton loads, asks and ends; one object for each instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model.onnx; a file that is not the one the configuration names is not served."""
        _check_arrays()
        version = args["model_version"]
        path = Path(args["model_repository"]) / version / "model.onnx"
        data = path.read_bytes()
        parameters = json.loads(args["model_config"])["parameters"]
        named = parameters.get("vssl.model_id." + version, {}).get("string_value")
        found = hashlib.sha256(data).hexdigest()
        if found != named:
            raise pb_utils.TritonModelException(
                f"{path} has the model id {found[:12]}, the configuration says {str(named)[:12]} for version "
                f"{version}; write the repository again: vssl export model.onnx --triton REPOSITORY"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        threads = parameters.get("intra_op_thread_count", {}).get("string_value")
        options.intra_op_num_threads = int(threads or 0)  # 0: all cores; the onnxruntime backend's own key
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run what Triton has batched, (N, S, S, 3) in all, once; answer each request with its rows."""
        images = [pb_utils.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        try:
            found = self.session.run(self.outputs, {"images": np.concatenate(images)})
        except Exception as error:
            failed = pb_utils.TritonError(f"the model cannot run these images: {error}")
            return [pb_utils.InferenceResponse(error=failed) for _ in requests]
        ends = np.cumsum([len(part) for part in images])[:-1]
        parts = zip(*(np.split(values, ends) for values in found), strict=True)
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(name, np.ascontiguousarray(rows))
                    for name, rows in zip(self.outputs, part, strict=True)
                ]
            )
            for part in parts
        ]


def _check_arrays() -> None:
    """Refuse a Python backend that was built for numpy 1 and is given numpy 2: its answers would be empty.

    Nothing else shows it before a request does. Backends that know numpy 2 pass.
    """
    if int(np.__version__.partition(".")[0]) < 2:
        return
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    if not np.array_equal(pb_utils.Tensor.from_dlpack("probe", sent).as_numpy(), sent):
        raise pb_utils.TritonModelException(
            f"this Triton's Python backend cannot read arrays of numpy {np.__version__}; give its Python an older "
            "one: pip install 'numpy<2'"
        )
