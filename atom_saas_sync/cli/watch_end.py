"""The end of a `watch` that was told to stop, also while something hangs."""

from __future__ import annotations

import os
import threading
import time

_HUNG_SECONDS = 8.0
"""More than the service takes to stop if nothing hangs."""

_CLOSING_SECONDS = 1.0
"""More than the process takes to end after that."""


class TimelyEnd:
    """Ends the process some time after a signal, whatever hangs.

    A frozen server, a log that nobody reads or a name service that does not answer can keep a thread for minutes.
    """

    def __init__(self) -> None:
        self._is_done = threading.Event()
        self._has_begun = False

    def begin(self, number: int, _frame: object) -> None:
        """Limit the time from now on; a handler of signals."""
        if not self._has_begun:
            self._has_begun = True
            threading.Thread(target=self._end, args=(number,), name="end", daemon=True).start()

    def done(self) -> None:
        """Report that the service has stopped, and that this is stored if it could be: the exit code is 0 then."""
        self._is_done.set()

    def _end(self, number: int) -> None:
        if not self._is_done.wait(_HUNG_SECONDS):
            os._exit(128 + number)
        time.sleep(_CLOSING_SECONDS)
        os._exit(0)
