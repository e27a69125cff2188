"""Run many small tasks in a few threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

_WAITING_FOR_EACH = 5
_BATCH_SECONDS = 0.1

Answer = TypeVar("Answer")
Task = TypeVar("Task")


def in_threads(
    tasks: Iterator[Task], work: Callable[[Task], Answer], *, threads: int, stopped: Callable[[], bool]
) -> Iterator[list[tuple[Task, Future[Answer]]]]:
    """Run the tasks in threads, in order; yield results in batches. A stop leaves the rest undone."""
    with _pool(threads) as pool:
        running: dict[Future[Answer], Task] = {}
        while True:
            if stopped():
                for future in [each for each in running if each.cancel()]:
                    del running[future]
            else:
                for task in islice(tasks, _WAITING_FOR_EACH * threads - len(running)):
                    running[pool.submit(partial(work, task))] = task
            if not running:
                return
            wait(running, timeout=_BATCH_SECONDS)
            finished = [future for future in running if future.done()]
            if finished:
                yield [(running.pop(future), future) for future in finished]


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="task")
    try:
        yield pool
    finally:
        # Requests in flight are awaited: their result must not be lost.
        pool.shutdown(wait=True, cancel_futures=True)
