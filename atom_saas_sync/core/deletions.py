"""The deletion guard: how many skills one run, or the messages of an hour, may delete."""

from __future__ import annotations

import math

from msgspec import Struct

DEFAULT_SHARE = 0.25
DEFAULT_FLOOR = 10


class MaxDelete(Struct, frozen=True):
    """The limit on deletions in one run: a number, or a share of the cached marketplace skills.

    The default is a quarter, and never less than 10.
    """

    number: int | None = None
    share: float | None = None

    def limit(self, cached: int) -> int:
        """Return the largest number of deletions with `cached` skills of the marketplace."""
        if self.number is not None:
            return self.number
        if self.share is not None:
            return math.floor(cached * self.share)
        return max(DEFAULT_FLOOR, math.floor(cached * DEFAULT_SHARE))
