"""A model and uint8 images (N, S, S, 3) -> N Gaussians and their features.

The one place that runs models: extraction, the HTTP service and search all come here, so the
same image gives the same numbers in each, whether onnxruntime or OpenVINO runs the file here or a
Triton server runs it elsewhere (`serve.inference.backends`). Loading checks
everything that can be checked (card, shapes, providers, precision, golden pair) and refuses with
what to do about it.
Shape letters: N images, S side, D embedding dimension, F feature dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serve.inference.backends.onnxruntime import Graph, LocalGraph
from serve.inference.backends.openvino import OpenVinoGraph, compile_model
from serve.inference.backends.providers import CUDA, check_engine, providers_for, tensorrt_providers
from serve.inference.backends.session import EXPORT_AGAIN, check_shapes, load_session, read_metadata, tensors
from serve.inference.backends.triton import connect, is_triton
from serve.inference.cores import available_cores
from serve.inference.embedded import EmbeddedImages
from vssl.embeddings.gaussian import Floats, GaussianEmbedding
from vssl.errors import FormatError, ImageError, InputError
from vssl.images.decode import DEFAULT_LIMITS, DecodeLimits
from vssl.images.preprocess import Pixels, load_image
from vssl.model.card import ModelCard
from vssl.model.golden import TOLERANCE, Golden
from vssl.model.identity import sha256_bytes
from vssl.model.seal import read_metadata as read_entries
from vssl.model.seal import read_sealed


class Engine:
    """A loaded model. Build it with `Engine.open`; every method may be called from any thread.

    Memory stays flat because a graph here only ever sees a few batch sizes (`buckets`); callers
    that run at the same time each hold the working memory of one batch.
    """

    def __init__(self, source: str, graph: Graph, card: ModelCard, model_id: str, golden: Golden) -> None:
        self.source = source
        self.graph = graph
        self.card = card
        self.model_id = model_id
        self.golden = golden
        self.threads = graph.threads
        self.providers = graph.providers
        self.buckets = graph.buckets
        size = card.preprocess.size
        self._shape = (size, size, 3)

    @classmethod
    def open(
        cls,
        model: Path | str,
        *,
        device: str = "auto",
        engine: str = "onnxruntime",
        precision: str | None = None,
        threads: int | None = None,
        concurrent: bool = False,
        check: bool = True,
    ) -> Engine:
        """Load and verify a model: a file, or triton://HOST:PORT/MODEL on a Triton server.

        device: `cpu`, `cuda` (refused when the CUDA provider does not load) or `auto` (CUDA when
            this onnxruntime has it, else CPU); a Triton server has its own devices.
        engine: `onnxruntime`, `openvino` on CPUs (the extra of that name), or `tensorrt`: onnxruntime with
            TensorRT on a GPU, refused when its libraries do not load.
        precision: what OpenVINO computes in, `fp32` (also when None) or `bf16`, refused when the CPU
            cannot; what TensorRT does, `fp32` (also when None), `fp16` or `bf16`. onnxruntime alone
            computes in the file's own, hence None.
        threads: cores one call of `infer` uses here; all usable cores when None.
        concurrent: load onnxruntime on CPUs twice, so that runs at the same time share those cores
            (`serve.inference.backends.onnxruntime.LocalGraph`); the weights are then in memory twice.
        check: run the golden pair and compare. A file's seal is checked before anything of it is read.

        Raises InputError (absent file, wrong device), FormatError (not a model of ours, or one
        that does not answer its golden pair) or TritonServerError (no answer from a Triton server).
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads: found {threads}, expected at least 1")
        check_engine(model, engine=engine, precision=precision, device=device)
        if is_triton(model):
            return cls._open_triton(model, check=check)
        path, data = Path(model), read_sealed(model)
        threads = threads or available_cores()
        model_id = sha256_bytes(data)
        graph: Graph
        if engine == "openvino":
            precision = precision or "fp32"
            compiled, inputs, outputs = compile_model(data, path, threads, precision)
            card, golden = read_metadata(read_entries(data), path)
            check_shapes(inputs, outputs, card, path)
            side = card.preprocess.size
            graph = OpenVinoGraph(path, compiled, side, threads, precision, card.output_shapes)
        else:
            if engine == "tensorrt":
                precision = precision or "fp32"
                side = read_metadata(read_entries(data), path)[0].preprocess.size
                providers = tensorrt_providers(side, precision, model_id)
            else:
                providers = providers_for(device)
            session = load_session(data, path, providers, threads)
            card, golden = read_metadata(session.get_modelmeta().custom_metadata_map, path)
            check_shapes(tensors(session.get_inputs()), tensors(session.get_outputs()), card, path)
            share = concurrent and threads > 1 and CUDA not in session.get_providers()
            narrow = load_session(data, path, providers, 1) if share else None
            graph = LocalGraph(
                path, session, card, threads, narrow=narrow, engine=engine, precision=precision
            )
        opened = cls(str(path), graph, card, model_id, golden)
        if check:
            opened.check_golden()
        return opened

    @classmethod
    def _open_triton(cls, model: Path | str, *, check: bool) -> Engine:
        graph, facts = connect(model)
        engine = cls(str(graph.address), graph, facts.card, facts.model_id, facts.golden)
        try:
            if check:
                engine.check_golden()
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def on_gpu(self) -> bool:
        """Whether the graph runs on CUDA here."""
        return CUDA in self.providers

    @property
    def lowered(self) -> str | None:
        """The precision that the graph computes in where that is less than the file's own, else None."""
        asked = self.graph.precision
        return asked if asked and TOLERANCE[asked] > TOLERANCE["fp32"] else None

    @property
    def precision(self) -> str:
        """What the graph computes in: the file's own precision, or the one asked for."""
        return self.graph.precision or self.card.precision

    @property
    def remote(self) -> bool:
        """Whether each run waits on a network instead of on this machine's cores."""
        return self.graph.remote

    def close(self) -> None:
        """Let go of connections; the engine is not used again."""
        self.graph.close()

    def run(self, images: Pixels, *, more_waiting: bool = False) -> tuple[Floats, ...]:
        """Run the graph on uint8 (N, S, S, 3) -> raw mean (N, D), variance (N, D), features (N, F).

        From a model that predicts it, uncertainty (N,) comes fourth (`ModelCard.output_shapes`).
        Nothing is checked about the numbers; see `infer`. more_waiting: whether the caller has more to run.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self._shape:
            raise InputError(
                f"images: found {images.dtype} of shape {images.shape}, "
                f"expected uint8 of shape (N, {', '.join(map(str, self._shape))})"
            )
        total = len(images)
        outputs = tuple(np.empty((total, *shape), np.float32) for shape in self.card.output_shapes.values())
        for start, stop, bucket in self.graph.cut(total):
            batch = images[start:stop]
            if len(batch) < bucket:
                batch = np.concatenate([batch, np.zeros((bucket - len(batch), *self._shape), np.uint8)])
            found = self.graph.run(batch, more_waiting=more_waiting)
            for out, values in zip(outputs, found, strict=True):
                if values.shape != (bucket, *out.shape[1:]):
                    raise FormatError(
                        f"{self.source}: an output has shape {values.shape}, "
                        f"its card says {(bucket, *out.shape[1:])}; {EXPORT_AGAIN}"
                    )
                out[start:stop] = values[: stop - start]
        return outputs

    def infer(self, images: Pixels) -> EmbeddedImages:
        """Embed uint8 (N, S, S, 3) images.

        An image's answer does not depend on the others in the call nor on N.
        Raises InputError for another dtype or shape, or when the model answers with NaN, infinity
        or a variance that is not positive.
        """
        mean, variance, features, *predicted = self.run(images)
        gaussians = GaussianEmbedding(mean, variance, *predicted)
        return EmbeddedImages(mean, variance, features, gaussians.uncertainty, bool(predicted))

    def check_golden(self) -> float:
        """Run the golden pair; return the largest relative difference, raise FormatError beyond the tolerance."""
        try:
            loosest = max((self.precision, self.card.precision), key=TOLERANCE.__getitem__)
            mean, variance, features, *predicted = self.run(self.golden.images)
            return self.golden.check(mean, variance, features, loosest, *predicted)
        except (FormatError, InputError) as error:
            raise FormatError(f"{self.source}: {error}") from error

    def embed(self, images: Sequence[bytes], limits: DecodeLimits = DEFAULT_LIMITS) -> EmbeddedImages:
        """Decode and embed encoded images; one that fails has its own ImageError in its place."""
        pixels: list[Pixels | ImageError] = []
        for data in images:
            try:
                pixels.append(load_image(data, self.card.preprocess, limits))
            except ImageError as error:
                pixels.append(error)
        return self.embed_pixels(pixels)

    def embed_pixels(
        self, pixels: Sequence[Pixels | ImageError], *, more_waiting: bool = False
    ) -> EmbeddedImages:
        """Embed decoded images (S, S, 3), passing errors through in their places; more_waiting: see `run`."""
        errors = {n: p for n, p in enumerate(pixels) if isinstance(p, ImageError)}
        good = [p for p in pixels if not isinstance(p, ImageError)]
        if not errors and good:
            return EmbeddedImages.of_outputs(*self.run(np.stack(good), more_waiting=more_waiting))
        positions = [n for n in range(len(pixels)) if n not in errors]
        parts = [(positions, self.embed_pixels(good, more_waiting=more_waiting))] if good else []
        return EmbeddedImages.assembled(self.card.output_shapes, len(pixels), parts, errors)
