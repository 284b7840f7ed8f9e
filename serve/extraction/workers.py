"""Tasks -> results in the tasks' order, by a bounded number of threads.

Each thread takes one block through all of its stages (read, decode, infer) before it takes the
next. No stage has threads of its own, so none can wait on another that is idle, and the split of
the cores between decoding and inference is whatever the images and the model need: it is
found, not set. Pillow and onnxruntime both let go of Python's lock while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def ordered(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, workers: int, ahead: int
) -> Generator[Result]:
    """Yield `work(task)` for each task, in order.

    At most `ahead` tasks are started and not yet yielded: a consumer that is slow (a full disk, a
    slow one) stops the workers, and memory holds `ahead` results at most. An error of a task is
    raised in its turn; closing the iterator cancels what has not started.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract")
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, task))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
