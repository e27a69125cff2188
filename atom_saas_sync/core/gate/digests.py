"""Digests in text form: `sha256:` and hexadecimal digits."""

from __future__ import annotations

import re

from atom_saas_sync.core.gate.types import SHORTEST_DIGEST
from atom_saas_sync.errors import UsageError

_PREFIX = "sha256:"
_WHOLE = 64
_TYPED = rf"(?i:{_PREFIX})?([0-9a-fA-F]{{{SHORTEST_DIGEST},{_WHOLE}}})"


def digest_text(digest: bytes) -> str:
    """Return a digest as it is printed: `sha256:` and 64 hexadecimal digits."""
    return f"{_PREFIX}{digest.hex()}"


def digits_of(text: str) -> str | None:
    """Return the 12 to 64 hexadecimal digits of a typed digest; None if it is not a digest."""
    found = re.fullmatch(_TYPED, text, re.ASCII)
    return found and found[1].lower()


def whole_digest(text: object) -> bytes | None:
    """Return the digest if `text` has all of its 64 digits, else None."""
    digits = digits_of(text) if isinstance(text, str) else None
    return bytes.fromhex(digits) if digits and len(digits) == _WHOLE else None


def parse_digits(text: str) -> str:
    """Return the digits of a typed digest. Raises UsageError."""
    digits = digits_of(text)
    if digits is None:
        raise UsageError(f"invalid digest {text!r}: expected {SHORTEST_DIGEST} to 64 hexadecimal digits")
    return digits


def split_at_last(argument: str) -> tuple[str, str | None]:
    """Split `ID@REST` at the last `@`. REST is None if there is no `@`, or only a leading one.

    Ids may contain `@`: ask for the whole argument as an id first.
    """
    skill_id, separator, rest = argument.rpartition("@")
    return (skill_id, rest) if separator and skill_id else (argument, None)
