"""Messages that were received and wait to be written."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

from atom_saas_sync.core.incoming.messages import Message

BATCH_MESSAGES = 1000
BATCH_BYTES = 4 * 1024 * 1024
WAITING_MESSAGES = 3000
WAITING_BYTES = 12 * 1024 * 1024
"""Backpressure limit: above it we stop reading, so TCP slows the sender down and nothing is dropped."""


class Backlog:
    """What was received and waits for the disk: the event loop adds, the thread that writes reads and takes away.

    Large frames wait as they came. The thread that writes reads them: if the loop did, both would contend for the
    interpreter, and what is decoded takes far more memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Message | str] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Tell whether so much waits that no more is to be read."""
        return len(self._waiting) >= WAITING_MESSAGES or self._bytes >= WAITING_BYTES

    @property
    def makes_a_batch(self) -> bool:
        """Tell whether it is no use to wait for more."""
        return len(self._waiting) >= BATCH_MESSAGES

    def add(self, what: Message | str) -> None:
        """Put a message, or a frame that is still to be read, behind the others."""
        with self._lock:
            self._waiting.append(what)
            self._bytes += _memory(what)

    def batch(self, read: Callable[[str], Message | None]) -> list[Message]:
        """Return the first messages that make a batch, by number and by size; they stay until they are `done`.

        `read` is called once for each frame among them; one of which it makes no message is dropped.
        """
        with self._lock:
            first = self._waiting[:BATCH_MESSAGES]
        batch: list[Message] = []
        size = looked_at = 0
        for what in first:
            looked_at += 1
            message = read(what) if isinstance(what, str) else what
            if message is not None:
                batch.append(message)
                size += message.memory
            if size >= BATCH_BYTES:
                break
        with self._lock:
            self._bytes += size - sum(map(_memory, first[:looked_at]))
            self._waiting[:looked_at] = batch
        return batch

    def done(self, batch: Sequence[Message]) -> None:
        """Take the first messages away: they are in the database."""
        with self._lock:
            self._bytes -= sum(map(_memory, batch))
            del self._waiting[: len(batch)]


def _memory(what: Message | str) -> int:
    return sys.getsizeof(what) if isinstance(what, str) else what.memory
