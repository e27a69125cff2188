"""`atom-sync sandbox`: a local marketplace to try things out with (cli.md)."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="A local marketplace for trying out, tests and demos.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.")] = 8600,
    skills: Annotated[int, typer.Option(help="How many skills to make up.", min=0)] = 5000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same skills.")] = 1,
    catalogue: Annotated[
        Path | None, typer.Option(help="Take the skills from this file, one JSON object a line (.gz too).")
    ] = None,
    token: Annotated[str | None, typer.Option(help="The token that is accepted, at_saas_sandbox if not given.")] = None,
    rate_limit: Annotated[int, typer.Option(help="Requests that are free in a minute.", min=1)] = 100_000,
    latency_ms: Annotated[int, typer.Option(help="Wait before each answer.", min=0)] = 0,
) -> None:
    """Serve a made-up marketplace (HTTP and WebSocket) until SIGINT or SIGTERM."""
    if ctx.invoked_subcommand is not None:
        return
    from atom_saas_sync.sandbox import DEFAULT_TOKEN, Sandbox

    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    sandbox = Sandbox(
        skills=skills,
        seed=seed,
        catalogue=catalogue,
        token=token or DEFAULT_TOKEN,
        host=host,
        port=port,
        rate_limit=rate_limit,
        latency=latency_ms / 1000,
    )
    with sandbox:
        sys.stderr.write(
            f"This is a sandbox with {sandbox.state.total} skills, not the real marketplace. Stop it with Ctrl+C.\n"
        )
        sys.stdout.write(
            f"export ATOM_SAAS_API_URL={sandbox.url}\n"
            f"export ATOM_SAAS_API_TOKEN={sandbox.token}\n"
            f"export ATOM_SAAS_WS_URL={sandbox.ws_url}\n"
        )
        sys.stdout.flush()
        stopped.wait()
