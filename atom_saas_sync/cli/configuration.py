"""`config show` and `config check`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from atom_saas_sync.cli.output import GlobalOptions, console, print_json
from atom_saas_sync.errors import ConfigError

app = typer.Typer(help="The effective configuration, and whether it is right.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def show(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show every variable, its value with secrets masked, and where it comes from. Exit code 78 if some are wrong."""
    from atom_saas_sync.config import show_settings

    options: GlobalOptions = ctx.obj
    shown, problems, warnings = show_settings(
        os.environ, env_file=options.env_file, working_directory=Path.cwd(), database=options.database
    )
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
        from rich.table import Table

        table = Table("variable", "value", "from", box=None, pad_edge=False)
        for line in shown:
            table.add_row(line.name, line.value or "-", line.origin, style=None if line.value else "dim")
        console().print(table)
    _tell(problems, warnings)
    if problems:
        raise typer.Exit(ConfigError.exit_code)


@app.command()
def check(
    ctx: typer.Context,
    as_json: _Json = False,
    strict: Annotated[bool, typer.Option(help="Warnings, such as unknown names, count as problems.")] = False,
) -> None:
    """Check the configuration. Exit code 0 if it is right, 78 with all problems if it is not."""
    from atom_saas_sync.config import show_settings

    options: GlobalOptions = ctx.obj
    shown, problems, warnings = show_settings(
        os.environ, env_file=options.env_file, working_directory=Path.cwd(), database=options.database
    )
    by_name = {line.name: line.value for line in shown}
    if by_name["ATOM_SAAS_ENABLED"] != "false" and by_name["ATOM_SAAS_API_TOKEN"] is None and not problems:
        problems = ("ATOM_SAAS_API_TOKEN: no token for the marketplace is set",)
    right = not problems and not (strict and warnings)
    if as_json:
        print_json({"success": right, "problems": problems, "warnings": warnings})
    _tell(problems, warnings)
    if not right:
        raise typer.Exit(ConfigError.exit_code)
    if not as_json:
        typer.echo("The configuration is right.")


def _tell(problems: tuple[str, ...], warnings: tuple[str, ...]) -> None:
    for problem in problems:
        sys.stderr.write(f"atom-sync: {problem}\n")
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")
