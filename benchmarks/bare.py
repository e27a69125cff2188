"""A minimal Typer application with two commands; one prints figures from an SQLite file as JSON."""

from __future__ import annotations

import json
import sqlite3
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def status(
    database: Annotated[str, typer.Option(help="The file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Print the number of skills and the times of the last runs."""
    connection = sqlite3.connect(database)
    skills = connection.execute("SELECT count(*) FROM skill_cache").fetchone()[0]
    runs = connection.execute("SELECT kind, status, started_at FROM sync_run ORDER BY id DESC LIMIT 20").fetchall()
    typer.echo(json.dumps({"skills": skills, "runs": runs}) if as_json else f"{skills} skills, {len(runs)} runs")


@app.command()
def other(name: Annotated[str, typer.Argument(help="Whom to greet.")] = "you") -> None:
    """Do nothing, as a second command."""
    typer.echo(f"hello {name}")


if __name__ == "__main__":
    app()
