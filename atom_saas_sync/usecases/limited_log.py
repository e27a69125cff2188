"""Rate-limited logging of lines that others can cause: a few per second, and a count of the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

LINES_A_SECOND = 20
"""Limit for one cause: journald drops lines of a unit that floods it, including important ones."""


class LimitedLog:
    """The lines of one cause. `more` is the text for the number of suppressed lines."""

    def __init__(
        self,
        logger: logging.Logger,
        level: int,
        more: str,
        *,
        most: int = LINES_A_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._level = level
        self._more = more
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._began = -1.0
        self._lines = 0

    def say(self, text: str, *arguments: object) -> None:
        """Log a line, or count it."""
        if self._logger.isEnabledFor(self._level) and self.admits():
            self._logger.log(self._level, text, *arguments)

    def admits(self) -> bool:
        """Tell whether one more line may be logged; otherwise it is counted."""
        now = self._clock()
        with self._lock:
            left_out = 0
            if not 0 <= now - self._began < 1:
                left_out = self._take_left_out()
                self._began = now
            self._lines += 1
            admitted = self._lines <= self._most
        self._tell(left_out)
        return admitted

    def log_suppressed(self, *, at_once: bool = False) -> None:
        """Log the number of suppressed lines once their second is over."""
        with self._lock:
            over = at_once or not 0 <= self._clock() - self._began < 1
            left_out = self._take_left_out() if over else 0
        self._tell(left_out)

    def _take_left_out(self) -> int:
        left_out, self._lines = max(0, self._lines - self._most), 0
        return left_out

    def _tell(self, left_out: int) -> None:
        if left_out:
            self._logger.log(self._level, self._more, left_out)
