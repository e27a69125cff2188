"""What comes of migrating, checking and restoring a database."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Change(Struct, frozen=True):
    """The result of an upgrade or downgrade: the migrations in order, and the copy made before."""

    migrations: tuple[str, ...] = ()
    backup: Path | None = None
    adopted: tuple[str, ...] = ()
    """The tables of the Atom backend that were taken over or given back."""


class CheckFinding(Struct, frozen=True):
    """A finding of `db check`: the check, a message and a hint. One that is not `wrong` is informational."""

    check: str
    message: str
    hint: str
    wrong: bool = True


class Restored(Struct, frozen=True):
    """The result of a restore: the migrations applied, what `db check` says, and where the former database is kept."""

    applied: tuple[str, ...]
    findings: tuple[CheckFinding, ...]
    kept: Path | None
