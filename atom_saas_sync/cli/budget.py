"""`budget`: the available requests, and their limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import counted, print_json, say
from atom_saas_sync.cli.pager import paged

if TYPE_CHECKING:
    from atom_saas_sync.model import BudgetState

app = typer.Typer(help="Show and reset the request budget.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_WINDOWS = {60: "a minute", 3600: "an hour"}


@app.command()
@paged
def show(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show how many requests are free now, each limit, and who set it."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.marketplace import marketplace_of
    from atom_saas_sync.store import open_store

    settings = runtime.load(ctx.obj)
    with open_store(settings.database, create=False) as store:
        state = store.budget().state(
            datetime.now(UTC),
            per_minute=settings.rate_limit_per_minute,
            per_hour=settings.rate_limit_per_hour,
            marketplace=marketplace_of(settings.api_url),
        )
    if as_json:
        print_json({"budget": _document(state)})
        return
    from atom_saas_sync.times import format_time

    wait = f"; the next in {state.next_free_in_seconds:.0f} s" if state.next_free_in_seconds > 0 else ""
    say(f"{counted(state.free, 'request')} free{wait}")
    for limit in state.limits:
        window = _WINDOWS[limit.window_seconds]
        say(f"  {limit.requests:,} {window}: {limit.used:,} used, {limit.free:,} free ({printable(limit.set_by)})")
    if state.paused_until is not None:
        say(f"  the marketplace asked for a pause until {format_time(state.paused_until)}")
    if state.declared_until is not None:
        say(f"  the limit that the marketplace declared holds until {format_time(state.declared_until)}")
        say("  `atom-sync budget reset` discards it")


def _document(state: BudgetState) -> dict[str, Any]:
    from atom_saas_sync.times import time_text

    return {
        "free": state.free,
        "next_free_in_seconds": state.next_free_in_seconds,
        "limits": [
            {
                "requests": limit.requests,
                "window_seconds": limit.window_seconds,
                "used": limit.used,
                "free": limit.free,
                "set_by": limit.set_by,
            }
            for limit in state.limits
        ],
        "declared_until": time_text(state.declared_until),
        "paused_until": time_text(state.paused_until),
    }


@app.command()
def reset(ctx: typer.Context, as_json: _Json = False) -> None:
    """Discard the limit that the marketplace declared. Requests already sent still count against your own limits."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    settings = runtime.load(ctx.obj)
    with open_store(settings.database, create=False) as store:
        forgotten = store.budget().forget_declared_limit()
    if as_json:
        print_json({"reset": forgotten})
    else:
        say("Discarded the declared limit." if forgotten else "No limit was declared.")
