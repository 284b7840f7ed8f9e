"""The same mapper over Ray Data: tasks -> blocks, on every machine of a Ray cluster.

Ray starts on this machine unless it is connected to a cluster already. The model file and the
images must be at the same path or URL on every machine. Results come back in any order; the
writer puts them in place, so the output is that of the local engine.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from serve.extraction.blocks import BlockResult, MapOptions, Task, embed_block
from serve.inference.cores import available_cores
from serve.inference.engine import Engine
from vssl.errors import MissingExtraError
from vssl.images.items import ImageSource

TASKS_A_BATCH = 4


class Mapper:
    """One worker's model and source, kept between tasks."""

    def __init__(
        self, model: str, precision: str | None, model_id: str, source: Any, options: MapOptions
    ) -> None:
        import ray

        engine = "onnxruntime" if precision is None else "openvino"
        self.engine = Engine.open(model, threads=1, engine=engine, precision=precision)
        if self.engine.model_id != model_id:
            raise RuntimeError(f"{model} on {ray.util.get_node_ip_address()} is another model")
        self.source: ImageSource = ray.get(source)
        self.options = options

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed the tasks of a batch; tasks and results travel as bytes of our own making."""
        tasks: list[Task] = [pickle.loads(data) for data in batch["task"]]  # noqa: S301
        blocks = [embed_block(self.engine, self.source, task.rows, self.options) for task in tasks]
        return {"result": [pickle.dumps(pair) for pair in zip(tasks, blocks, strict=True)]}


def _everywhere(engine: Engine) -> str:
    """Return the model's source as the workers find it, whatever folder they run in."""
    return engine.source if engine.remote else str(Path(engine.source).resolve())


def ray_mapper(
    engine: Engine, source: ImageSource, options: MapOptions, workers: int | None
) -> Callable[[Iterable[Task]], Generator[tuple[Task, BlockResult]]]:
    """Return a mapper over Ray Data; raises MissingExtraError when ray is not installed."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray") from error
    if not ray.is_initialized():
        ray.init(
            num_cpus=available_cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )

    def run(tasks: Iterable[Task]) -> Generator[tuple[Task, BlockResult]]:
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        if not rows:
            return
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data = ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // TASKS_A_BATCH)).map_batches(
            Mapper,
            fn_constructor_args=(
                _everywhere(engine),
                engine.graph.precision,
                engine.model_id,
                ray.put(source),
                options,
            ),
            compute=ray.data.ActorPoolStrategy(
                size=workers or max(1, int(ray.cluster_resources()["CPU"]) - 1)
            ),
            batch_size=TASKS_A_BATCH,
            num_cpus=1,
        )
        for row in data.iter_rows():
            yield pickle.loads(row["result"])  # noqa: S301

    return run
