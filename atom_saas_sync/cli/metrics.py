"""`metrics`: Prometheus text, on standard output or in a file for node_exporter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import GlobalOptions, complain, print_json
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import AtomSyncError, ConfigError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings


@paged
def metrics(
    ctx: typer.Context,
    textfile: Annotated[
        Path | None, typer.Option("--textfile", metavar="FILE", help="Write them to FILE, atomically.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the metrics in Prometheus' text format."""
    from atom_saas_sync.cli.runtime import settings_of

    settings = settings_of(ctx.obj)
    if textfile is not None:
        write_metrics(settings, textfile)
        if as_json:
            print_json({"textfile": str(textfile.absolute())})
    elif as_json:
        from atom_saas_sync.metrics import samples

        text, reasons = _render(settings)
        found = samples(text)
        print_json({"metrics": found, "total": len(found), "reasons": reasons})
    else:
        text, reasons = _render(settings)
        text = "".join(f"# {reason}\n" for reason in reasons) + text
        sys.stdout.write(printable(text, lines=True) if sys.stdout.isatty() else text)


def write_metrics(settings: Settings, path: Path) -> None:
    """Write the current metrics to a file for node_exporter. Raises UsageError for a file of another kind."""
    from atom_saas_sync.textfile import write_textfile

    _refuse_foreign(path)
    write_textfile(path, _render(settings)[0])


def _refuse_foreign(path: Path) -> None:
    """Raise UsageError for a file of another kind, DatabaseError for a path that is not that of a file."""
    from atom_saas_sync.textfile import refuse_foreign

    # Under a name that node_exporter reads there is nothing else to lose, even if a crash has damaged it.
    refuse_foreign(path, lambda start: path.suffix == ".prom" or _is_metrics(start), "file of metrics")


def _is_metrics(start: bytes) -> bool:
    """Tell whether each line is a comment or a sample."""
    import re

    from atom_saas_sync.textfile import RECOGNIZED_BY

    line = re.compile(rb"\s*(?:#.*|[a-zA-Z_:][\w:]*\s*(?:\{.*\})?\s+(?:[-+]?(?:\d\S*|Inf)|NaN)(?:\s+-?\d+)?\s*)?")
    lines = start.splitlines()
    if len(start) == RECOGNIZED_BY and len(lines) > 1:
        lines.pop()  # cut off
    return all(map(line.fullmatch, lines))


@contextmanager
def metrics_afterwards(options: GlobalOptions, path: Path | None) -> Iterator[None]:
    """Write the metrics to `path`, if one is given, after the block, however it ends.

    A failure to write is a warning, because the run has its own exit code. Raises UsageError before the block if the
    file is of another kind, and DatabaseError if the path is not that of a file.
    """
    from atom_saas_sync.cli.runtime import settings_of

    if path is not None:
        _refuse_foreign(path)
    try:
        yield
    finally:
        if path is not None and not isinstance(sys.exception(), ConfigError):
            try:
                write_metrics(settings_of(options), path)
            except AtomSyncError as error:
                complain(f"warning: the metrics were not written: {error.message}", error.hint)


def _render(settings: Settings) -> tuple[str, list[str]]:
    """Return the metrics as text, and the reason if there are none: `never_synced` without a database."""
    from datetime import UTC, datetime

    from atom_saas_sync.metrics import render
    from atom_saas_sync.store import engine_at

    now = datetime.now(UTC)
    status = engine_at(settings.database).status(
        now,
        per_minute=settings.rate_limit_per_minute,
        per_hour=settings.rate_limit_per_hour,
        admission=settings.admission,
        admission_scope=settings.admission_scope,
    )
    return render(status, now), ["never_synced"] if status.revision is None and not status.database_bytes else []
