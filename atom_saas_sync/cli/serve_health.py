"""`serve-health`: HTTP for probes, Prometheus, operators and their browsers."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from atom_saas_sync.cli.output import GlobalOptions, complain
from atom_saas_sync.errors import DatabaseError


def serve_health(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.", min=0, max=65535)] = 8000,
) -> None:
    """Serve health, metrics and the admin API over HTTP."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import migrations
    from atom_saas_sync.store.database import Database, exists
    from atom_saas_sync.store.lock import serving
    from atom_saas_sync.store.runs import Runs
    from atom_saas_sync.web.app import create_app
    from atom_saas_sync.web.jobs import Jobs
    from atom_saas_sync.web.server import listen, serve

    signal.signal(signal.SIGHUP, lambda *_: None)  # until the server's own handler reports it
    options = replace(ctx.obj, usual_level="info")
    settings = runtime.load(options)

    def now() -> datetime:
        return datetime.now(UTC)

    def find_run(pid: int, since: datetime) -> int | None:
        if not exists(settings.database_path):
            return None  # the sync that was started makes it
        with Database.open(settings.database_path, migrate=False, read_only=True) as database:
            return Runs(database).run_of_process(pid, since=since) if migrations.current(database) else None

    jobs = Jobs(_command(options), find_run, now)
    with ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        try:
            if exists(settings.database_path):
                Database.open(settings.database_path).close()
        except DatabaseError as error:
            # Served all the same: the probes say what is wrong, and see when it is mended.
            complain(error.message, error.hint)
        stack.enter_context(serving(settings.database_path))  # syncs that see it leave a processor to the probes
        address = listener.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        logging.getLogger(__name__).info("serving on http://%s:%d; stop with Ctrl+C", shown, address[1])
        try:
            serve(create_app(settings, jobs, now), listener)
        finally:
            jobs.stop()


def _command(options: GlobalOptions) -> list[str]:
    """Return how a child is called with the settings of this process."""
    command = [sys.executable, "-m", "atom_saas_sync", "--log-level", options.level]
    command += ["--log-format", options.log_format]
    if options.env_file is not None:
        command += ["--env-file", str(options.env_file)]
    if options.database is not None:
        command += ["--database", options.database]
    return command
