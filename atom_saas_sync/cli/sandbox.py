"""`atom-sync sandbox`: a local mock marketplace, and commands that change a running one (docs/API_DOCUMENTATION.md)."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.cli.output import given_options, note, print_json
from atom_saas_sync.errors import ConnectionFailed, Interrupted, NotFound, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.sandbox import Sandbox

app = typer.Typer(
    help="Run a mock marketplace for experiments, tests and demos.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_HOST, _PORT = "127.0.0.1", 8600
_DEFAULT_URL = f"http://{_HOST}:{_PORT}"
_URL = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help=f"Base URL of the running sandbox [env: ATOM_SAAS_API_URL]. Default: {_DEFAULT_URL}.",
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback(invoke_without_command=True)
def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = _HOST,
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to listen on; 0 takes any free one.", min=0, max=65535)
    ] = _PORT,
    skills: Annotated[int, typer.Option(metavar="N", help="Number of generated skills.", min=0)] = 5000,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same skills.")] = 1,
    catalogue: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the skills from FILE, one JSON object a line (.gz too).")
    ] = None,
    token: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="The accepted token. Default: at_saas_sandbox.")
    ] = None,
    rate_limit: Annotated[int, typer.Option(metavar="N", help="Requests allowed a minute.", min=1)] = 100_000,
    latency_ms: Annotated[int, typer.Option(metavar="N", help="Delay each response by N milliseconds.", min=0)] = 0,
    bandwidth_mbit: Annotated[
        float, typer.Option(metavar="N", help="Send at most N Mbit/s, over all connections; 0 means no limit.", min=0)
    ] = 0,
    ping_interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between two WebSocket pings.", min=0.01)
    ] = 30.0,
    warm: Annotated[bool, typer.Option("--warm", help="Encode all pages before the first request.")] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT",
            help="Enable a fault: KIND[:FIELD=VALUE,…], such as error:endpoint=list,status=503,times=2.",
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Serve a mock marketplace (HTTP and WebSocket) until SIGINT or SIGTERM."""
    if ctx.invoked_subcommand is not None:
        return
    from atom_saas_sync.sandbox import DEFAULT_TOKEN, Sandbox
    from atom_saas_sync.sandbox.faults import parse_fault

    if catalogue is not None and not os.path.isfile(catalogue):  # noqa: PTH113 - Path.is_file raises for a name too long
        raise UsageError(f"there is no file {catalogue}")
    faults = [parse_fault(text) for text in fault or ()]
    sandbox = Sandbox(
        skills=skills,
        seed=seed,
        catalogue=catalogue,
        token=token or DEFAULT_TOKEN,
        host=host,
        port=port,
        rate_limit=rate_limit,
        latency=latency_ms / 1000,
        bandwidth=bandwidth_mbit * 125_000,
        ping_interval=ping_interval,
    )
    for one in faults:
        sandbox.fault(one)
    if warm:
        sandbox.warm()
    _serve_until_stopped(sandbox, as_json=as_json)


def _serve_until_stopped(sandbox: Sandbox, *, as_json: bool) -> None:
    """Start the sandbox, print the settings that point to it, and wait for SIGINT or SIGTERM."""
    from atom_saas_sync.cli.runtime import RunClock

    stop = RunClock()
    with stop.caught(), sandbox, _own_database() as database:
        note(f"This is a sandbox with {sandbox.state.total} skills, not the real marketplace. Stop it with Ctrl+C.")
        settings = {
            "ATOM_SAAS_API_URL": sandbox.url,
            "ATOM_SAAS_API_TOKEN": sandbox.token,
            "ATOM_SAAS_WS_URL": sandbox.ws_url,
            "ATOM_SAAS_DATABASE_URL": str(database),
        }
        if as_json:
            print_json({"settings": settings})
        else:
            sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
            sys.stdout.flush()
        with suppress(Interrupted):
            stop.sleep(None)


@contextmanager
def _own_database() -> Iterator[Path]:
    """Make a place for the database of this sandbox: what is tried out must not get into the real one."""
    from atom_saas_sync.cli import runtime

    directory = runtime.make_temporary_directory("atom-sync-sandbox-")
    yield directory / "atom.db"
    with suppress(OSError):  # not empty: somebody has synced, and may want to look at it
        directory.rmdir()


@app.command()
def state(url: _URL = None, _as_json: _Json = False) -> None:
    """Show what a running sandbox holds and has counted."""
    print_json(_control(url, "GET", "state"))


@app.command()
def push(
    skill_id: Annotated[str, typer.Argument(metavar="ID", help="A skill of the sandbox, or a new one.")],
    set_fields: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a field; a VALUE that is not JSON is text."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the skill.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not notify WebSocket clients.")] = False,
    url: _URL = None,
    as_json: _Json = False,
) -> None:
    """Change, add or delete a skill of a running sandbox and notify its WebSocket clients."""
    from urllib.parse import quote

    path = f"skills/{quote(skill_id, safe='')}"
    if delete:
        _control(url, "DELETE", path, {"push": not quiet})
        if as_json:
            print_json({"skill_id": skill_id, "deleted": True})
        return
    fields = dict(_assignment(text) for text in set_fields or ())
    if _control(url, "GET", path, missing={}):
        print_json(_control(url, "PATCH", path, {"fields": fields, "push": not quiet}))
    else:
        skill = {"skill_id": skill_id, "name": skill_id, **fields}
        print_json(_control(url, "PUT", "skills", {"skill": skill, "push": not quiet}))


@app.command("fault")
def switch_fault(
    fault: Annotated[
        str | None,
        typer.Argument(
            metavar="[FAULT]", help="KIND[:FIELD=VALUE,…]; without it, show the enabled faults.", show_default=False
        ),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Disable all faults.")] = False,
    kinds: Annotated[bool, typer.Option("--kinds", help="List the kinds of faults.")] = False,
    url: _URL = None,
    as_json: _Json = False,
) -> None:
    """Enable a fault of a running sandbox, disable all, or show them."""
    from atom_saas_sync.sandbox.faults import KINDS, parse_fault

    if kinds and as_json:
        print_json({"kinds": KINDS})
        return
    if kinds:
        for name, meaning in KINDS.items():
            sys.stdout.write(f"{name:16} {meaning}\n")
        return
    if clear:
        _control(url, "DELETE", "faults")
    if fault is not None:
        from dataclasses import asdict

        _control(url, "POST", "faults", asdict(parse_fault(fault)))
    print_json(_control(url, "GET", "faults"))


@app.command()
def flood(
    count: Annotated[int, typer.Argument(metavar="N", help="Number of updates to push.", min=1)],
    whole: Annotated[
        bool, typer.Option("--whole/--partial", help="Send whole skills, or the changed fields alone.")
    ] = True,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Change the description too.")] = True,
    url: _URL = None,
    _as_json: _Json = False,
) -> None:
    """Push updates as fast as the listeners of a running sandbox take them."""
    print_json(_control(url, "POST", "flood", {"count": count, "whole": whole, "text": text}))


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is not FIELD=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _address(url: str | None) -> str:
    """Return the address of the running sandbox: as given, or ATOM_SAAS_API_URL. Raises UsageError."""
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is not an http URL")
        return url
    from urllib.parse import urlsplit

    from atom_saas_sync.cli.runtime import settings_of

    settings = settings_of(given_options.get())
    if {shown.name: shown.origin for shown in settings.shown}["ATOM_SAAS_API_URL"] == "default":
        return _DEFAULT_URL
    host = urlsplit(settings.api_url).hostname or ""
    if host not in {"localhost", "::1"} and not host.startswith("127."):
        raise UsageError(
            f"ATOM_SAAS_API_URL is {settings.api_url}, which is not a sandbox on this machine",
            hint=f"name the sandbox: --url {_DEFAULT_URL}",
        )
    return settings.api_url


def _control(
    url: str | None,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    missing: dict[str, Any] | None = None,
) -> Any:  # noqa: ANN401 - JSON
    """Call the control API of a running sandbox; `missing` is the result of a 404 that is not a failure."""
    # The standard library's client is enough for this request; httpx belongs to marketplace/.
    import urllib.error
    import urllib.request

    url = _address(url)
    request = urllib.request.Request(  # noqa: S310 - checked above
        f"{url.rstrip('/')}/_sandbox/{path}",
        data=json.dumps(body or {}).encode(),
        headers={"content-type": "application/json"},
        method=method,
    )
    # No proxy: the control API accepts loopback only.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            answered = error.read()
        if error.code == 404 and missing is not None:  # noqa: PLR2004 - Not Found
            return missing
        failure = NotFound if error.code == 404 else UsageError  # noqa: PLR2004 - likewise
        raise failure(f"the sandbox refused: {_reason(answered, error.code)}") from error
    except OSError as error:
        raise ConnectionFailed(f"no sandbox is running at {url}", hint="start one with: atom-sync sandbox") from error


def _reason(answered: bytes, status: int) -> str:
    try:
        return str(json.loads(answered)["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
