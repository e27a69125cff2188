"""How many skills one run, or the messages of an hour, may delete."""

from __future__ import annotations

import math

from msgspec import Struct

_DEFAULT_LARGEST_SHARE = 0.25
_DEFAULT_FLOOR = 10


class MaxDelete(Struct, frozen=True):
    """The limit on deletions in one run: a number, or a share of the cached marketplace skills.

    The default is a quarter, and never less than 10 (cli.md, `--max-delete`).
    """

    number: int | None = None
    share: float | None = None

    def limit(self, cached: int) -> int:
        """Return the largest number of deletions with `cached` skills of the marketplace."""
        if self.number is not None:
            return self.number
        if self.share is not None:
            return math.floor(cached * self.share)
        return max(_DEFAULT_FLOOR, math.floor(cached * _DEFAULT_LARGEST_SHARE))
