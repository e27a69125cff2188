"""The end of a service that was told to stop, also while something hangs."""

from __future__ import annotations

import os
import threading
import time

_CLOSING_SECONDS = 1.0
"""More than the process takes to end after the service has stopped."""


class TimelyEnd:
    """Ends the process some time after a signal, whatever hangs.

    A frozen server, a log that nobody reads or a name service that does not answer can keep a thread for minutes.
    """

    def __init__(self, hung_seconds: float) -> None:
        """Allow for `hung_seconds`: more than the service takes to stop if nothing hangs."""
        self._hung_seconds = hung_seconds
        self._is_done = threading.Event()
        self._has_begun = False

    def begin(self, number: int, _frame: object) -> None:
        """Limit the time from now on; a handler of signals."""
        if not self._has_begun:
            self._has_begun = True
            threading.Thread(target=self._end, args=(number,), name="end", daemon=True).start()

    def done(self) -> None:
        """Report that the service has stopped as it should: the exit code is 0 then."""
        self._is_done.set()

    def _end(self, number: int) -> None:
        if not self._is_done.wait(self._hung_seconds):
            os._exit(128 + number)
        time.sleep(_CLOSING_SECONDS)  # there is no event to wait for: if all goes well, the process ends during it
        os._exit(0)
