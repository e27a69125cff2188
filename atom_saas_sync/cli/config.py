"""`config show` and `config check`; `config init` is in setup.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.config_init import init
from atom_saas_sync.cli.output import GlobalOptions, complain, note, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_table
from atom_saas_sync.errors import ConfigError

app = typer.Typer(help="Create, show and check the configuration.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

app.command()(init)


@app.command()
@paged
def show(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show every variable, its value with secrets masked, and its origin; exit with 78 if some are invalid."""
    from atom_saas_sync.cli.runtime import sources
    from atom_saas_sync.config import show_settings

    shown, problems, warnings = show_settings(**sources(ctx.obj))
    if as_json:
        print_json(
            {
                "success": not problems,
                "settings": [{"name": line.name, "value": line.value, "origin": line.origin} for line in shown],
                "problems": problems,
                "warnings": warnings,
            }
        )
    else:
        columns = (Column("variable"), Column("value", cut=True, least=27), Column("from", cut=True, least=11))
        print_table(columns, [(line.name, line.value or "-", line.origin) for line in shown])
    _tell(problems, warnings)
    if problems:
        raise typer.Exit(ConfigError.exit_code)


@app.command()
def check(
    ctx: typer.Context,
    as_json: _Json = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Treat warnings, such as unknown names, as problems.")
    ] = False,
) -> None:
    """Check the configuration; if it is invalid, list every problem and exit with 78."""
    from atom_saas_sync.cli.runtime import sources
    from atom_saas_sync.config import TOKEN_HINT, show_settings

    shown, problems, warnings = show_settings(**sources(ctx.obj))
    lines = {line.name: line for line in shown}
    if lines["ATOM_SAAS_ENABLED"].value != "false" and lines["ATOM_SAAS_API_TOKEN"].origin == "not set":
        problems = (*problems, f"ATOM_SAAS_API_TOKEN: no token for the marketplace is set; {TOKEN_HINT}")
    problems = (*problems, *_network_problems(lines["ATOM_SAAS_API_URL"].value))
    if not problems:
        problems = _gate_problems(ctx.obj)
    right = not problems and not (strict and warnings)
    if as_json:
        print_json({"success": right, "problems": problems, "warnings": warnings})
    _tell(problems, warnings)
    if not right:
        raise typer.Exit(ConfigError.exit_code)
    if not as_json:
        say("The configuration is valid.")


def _network_problems(url: str | None) -> list[str]:
    """Return the problems with variables of other programs that connections use: proxies and OpenSSL."""
    from atom_saas_sync.marketplace.proxies import proxy_for
    from atom_saas_sync.marketplace.tls import tls_context

    problems = []
    for look in (lambda: proxy_for(url or ""), lambda: tls_context(None)):
        try:
            look()
        except ConfigError as error:
            problems.append(error.message)
    return problems


def _gate_problems(options: GlobalOptions) -> tuple[str, ...]:
    """Return the problems with the files of admission that a sync would refuse, and with the scanner."""
    from atom_saas_sync.cli.policy import read_policy
    from atom_saas_sync.cli.runtime import settings_of

    try:
        read_policy(settings_of(options))
    except ConfigError as error:
        return tuple(error.message.splitlines())
    return ()


def _tell(problems: Sequence[str], warnings: Sequence[str]) -> None:
    for warning in warnings:
        note(f"warning: {printable(warning)}")
    for problem in problems:
        complain(problem)
