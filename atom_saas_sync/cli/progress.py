"""The progress bar of a sync, for a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from atom_saas_sync.cli.output import console


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class SyncProgress:
    """Updates a rich progress bar."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._bar = bar
        self._task = bar.add_task(what, total=None)

    def advance(self, done: int, total: int | None) -> None:
        """`done` of `total` have been processed."""
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def progress_bar(what: str) -> Iterator[SyncProgress]:
    """Show a progress bar on standard error with rate and remaining time; it disappears when the run ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar, _log_above_it():
        yield SyncProgress(bar, what)


@contextmanager
def _log_above_it() -> Iterator[None]:
    """Redirect the log to Rich's standard error, so that lines appear above the bar."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    before = [handler.stream for handler in handlers]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream)
