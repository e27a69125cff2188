"""`serve-health`: HTTP for probes, Prometheus, operators and their browsers."""

from __future__ import annotations

import gc
import logging
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.cli.output import GlobalOptions, complain
from atom_saas_sync.cli.timely_end import TimelyEnd
from atom_saas_sync.errors import DatabaseError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings

_HUNG_SECONDS = 27.0
"""More than requests in progress and children take to end, and less than the 30 s of our units."""

_OBJECTS_BEFORE_COLLECTION = 700
"""As Python's default: each request leaves some cyclic garbage, and with the limit of short commands (main.py) the
process would grow for thousands of scrapes."""


def serve_health(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to listen on; 0 takes any free one.", min=0, max=65535)
    ] = 8000,
) -> None:
    """Serve health, metrics and the admin API over HTTP."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import engine_at
    from atom_saas_sync.web.app import create_app
    from atom_saas_sync.web.jobs import Jobs
    from atom_saas_sync.web.server import listen, serve

    signal.signal(signal.SIGHUP, lambda *_: None)  # until the server's own handler reports it
    options = replace(ctx.obj, usual_level="info")
    settings = runtime.load(options)
    engine = engine_at(settings.database)

    def now() -> datetime:
        return datetime.now(UTC)

    def find_run(pid: int, since: datetime) -> int | None:
        if not engine.exists():
            return None  # the first sync creates it
        with engine.open(migrate=False, read_only=True) as store:
            return store.runs().run_of_process(pid, since=since) if store.schema().current() else None

    jobs = Jobs(_command(options, settings), find_run, now, runtime.environment_with(_files(settings)))
    with ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        try:
            if engine.exists():
                engine.open().close()
        except DatabaseError as error:
            # Serve anyway: the probes report the problem, and notice when it is fixed.
            complain(error.message, error.hint)
        address = listener.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        logging.getLogger(__name__).info("serving on http://%s:%d; stop with Ctrl+C", shown, address[1])
        app = create_app(settings, jobs, now)
        gc.freeze()
        gc.set_threshold(_OBJECTS_BEFORE_COLLECTION)
        end = TimelyEnd(_HUNG_SECONDS)
        try:
            serve(app, listener, end.begin)
        finally:
            jobs.stop()
            end.done()  # a reading of a frozen server would keep the process


def _command(options: GlobalOptions, settings: Settings) -> list[str]:
    """Return the command line for a child with the settings of this process, in any directory."""
    command = [sys.executable, "-P", "-m", "atom_saas_sync", "--log-level", options.level]
    command += ["--log-format", options.log_format]
    command += ["--database", str(settings.database)] if isinstance(settings.database, Path) else []
    # Exactly the file that was found, or none: not one that is created later.
    command += ["--no-env-file"] if settings.env_file is None else ["--env-file", str(settings.env_file)]
    return command + (["--system"] if options.system else [])


def _files(settings: Settings) -> dict[str, str]:
    """Return the variables that may name files from this process's directory, with their whole paths; and a server."""
    paths = {"ATOM_SAAS_API_TOKEN_FILE": settings.token_file, "ATOM_SAAS_CA_FILE": settings.ca_file}
    variables = {name: str(path) for name, path in paths.items() if path is not None}
    if not isinstance(settings.database, Path):  # with its password, which no list of processes may show
        variables["ATOM_SAAS_DATABASE_URL"] = settings.database.reveal()
    return variables
