"""Received messages that are not written yet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

from atom_saas_sync.core.incoming.messages import Message

BATCH_MESSAGES = 1000
BATCH_BYTES = 8 * 1024 * 1024
WRITE_SECONDS = 0.5
"""How long writing a batch may take, going by the previous one: no other write begins meanwhile, not even the last of a
`watch` that was told to stop. A fast database writes the largest batch in less."""

_FIRST_BATCH, _SMALLEST_BATCH = 100, 10
WAITING_MESSAGES = 3000
WAITING_BYTES = 12 * 1024 * 1024
"""Backpressure limit: above it we stop reading, so TCP slows the sender down and nothing is dropped."""


class Backlog:
    """A queue between the event loop, which adds, and the writer thread, which reads and removes.

    Large frames are queued unparsed, and parsed by the writer thread: in the event loop, parsing would compete for the
    GIL, and decoded messages take far more memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Message | str] = []
        self._bytes = 0
        self._most = _FIRST_BATCH
        """Messages of the next batch."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Tell whether the queue is so full that reading must pause."""
        return len(self._waiting) >= WAITING_MESSAGES or self._bytes >= WAITING_BYTES

    @property
    def makes_a_batch(self) -> bool:
        """Tell whether there is enough for a full batch."""
        return len(self._waiting) >= self._most

    def add(self, what: Message | str) -> None:
        """Append a message, or a frame that is not parsed yet."""
        with self._lock:
            self._waiting.append(what)
            self._bytes += _memory(what)

    def batch(self, read: Callable[[str], Message | None]) -> list[Message]:
        """Return the first messages that make a batch, by number, time and size; they stay until they are `done`.

        `read` is called once for each frame among them; one of which it makes no message is dropped.
        """
        with self._lock:
            first = self._waiting[: self._most]
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

    def done(self, batch: Sequence[Message], seconds: float) -> None:
        """Remove the first messages, which were written in so many seconds."""
        with self._lock:
            self._bytes -= sum(map(_memory, batch))
            del self._waiting[: len(batch)]
            fit = BATCH_MESSAGES if seconds <= 0 else int(len(batch) / seconds * WRITE_SECONDS)
            self._most = max(_SMALLEST_BATCH, min(fit, BATCH_MESSAGES))


def _memory(what: Message | str) -> int:
    return sys.getsizeof(what) if isinstance(what, str) else what.memory
