"""Operations that the host launches in one training step, per method: what a GPU waits for where its work is short.

A step of the recipe `cifar10` on the CPU with the branches that a GPU takes; what only looks at memory in another way
(views, detach, empty) is not counted. Counts depend neither on the batch nor on widths, which are small here.

eager       every operation of the step
compiled    with `compile = true`: what is left outside of the compiled graphs, and how many graphs are called

    python -m benchmarks.operations [--methods vssl byol ...]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from functorch.compile import aot_module_simplified, make_boxed_func
from torch.utils._python_dispatch import TorchDispatchMode

from train.loop.step import Learner, Length
from train.methods import METHODS
from train.settings.config import TrainConfig
from train.settings.recipe import load_recipe, merge

BATCH = 8
NARROW = {"width": 8, "dim": 16, "projector_hidden": 32, "predictor_hidden": 32, "denoiser_hidden": 32}
FEW = 64  # rows of a queue, prototypes
ALLOCATING = ("aten.empty", "aten.detach", "profiler.")
GRAPH = "compiled graph"


class Operations(TorchDispatchMode):
    """Counts the operations that are launched while it is entered, by name; compiled graphs count as one each."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.inside = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let torch.compile compile although this mode is active."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if not (self.inside or func.is_view or name.startswith(ALLOCATING)):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    def backend(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Compile as torch.compile's backend: run the graph as it is, and count it as one."""

        def compiled(part: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            def run(*values: Any) -> Any:
                self.counts[GRAPH] += 1
                self.inside = True
                try:
                    return part(*values)
                finally:
                    self.inside = False

            return make_boxed_func(run)

        return aot_module_simplified(
            graph, inputs, fw_compiler=compiled, bw_compiler=compiled, keep_inference_input_mutations=True
        )


def config(method: str, *, compiled: bool = False) -> TrainConfig:
    """Return the settings of the recipe `cifar10` for a method, in fp32, with narrow layers and small queues."""
    values = load_recipe("cifar10")
    values = merge(values, values.pop("methods").get(method, {}))
    values["augment_second"] = merge(values["augment"], values.get("augment_second", {}))
    options = {name: FEW for name in ("queue", "prototypes") if name in values.get("options", {})}
    own = {"method": method, "precision": "fp32", "compile": compiled, "network": NARROW, "options": options}
    return TrainConfig.from_dict(merge(values, own))


@contextmanager
def branches_of_a_gpu() -> Iterator[None]:
    """Let the CPU compute what a GPU would."""
    with patch("train.augment.colour.chooses_rows", lambda images: False):
        yield


def operations(settings: TrainConfig) -> Counter[str]:
    """Count the operations of one step by name, after a step that builds and compiles what it needs."""
    counter = Operations()
    images = [torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8)]
    labels, rows = [torch.zeros(BATCH, dtype=torch.int64)], [torch.arange(BATCH)]
    with branches_of_a_gpu(), patch("train.loop.step.TRANSLATOR", counter.backend):
        learner = Learner(settings, Length(195, 195_000, 256), 10, torch.device("cpu"))
        optimisers = [each for each in (learner.optimiser, learner.classifier_optimiser) if each is not None]
        for group in (group for each in optimisers for group in each.param_groups if "foreach" in group):
            group["foreach"] = True  # as torch's own optimisers choose on a GPU
        learner.begin_epoch(lambda: [(rows[0], images[0])])
        learner.step(0, images, labels, rows)
        counter.counts.clear()
        with counter:
            learner.step(1, images, labels, rows)
    return counter.counts


def main() -> None:
    """Print a table of all methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    print(f"{'method':<16}{'eager':>8}{'outside of graphs':>20}{'graphs':>8}")
    for method in arguments.methods:
        torch.compiler.reset()
        eager = operations(config(method))
        left = operations(config(method, compiled=True))
        graphs = left.pop(GRAPH, 0)
        print(f"{method:<16}{eager.total():>8}{left.total():>20}{graphs:>8}", flush=True)


if __name__ == "__main__":
    main()
