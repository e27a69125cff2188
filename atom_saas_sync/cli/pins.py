"""`pins`: keep skills at one version, whatever the marketplace offers (docs/TRUST.md)."""

from __future__ import annotations

from typing import Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.deciding import Json, Note, SkillIds, actor, now, tell_decided
from atom_saas_sync.cli.gate_session import open_desk
from atom_saas_sync.cli.output import age, counted, note, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_table

app = typer.Typer(help="Keep skills at one version.", no_args_is_help=True)


@app.command()
def add(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="ID[@VERSION|@DIGEST]", help="A full id; without a version, the served one is pinned."),
    ],
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Pin the served version, or put a former one back and pin that.

    Other versions wait until the pin is removed.
    """
    from atom_saas_sync.usecases.gate.pins_and_quarantine import add_pin

    with open_desk(ctx.obj) as desk:
        decided = add_pin(desk, target, note=note, actor=actor(), now=now())
    tell_decided(decided, "pinned", as_json=as_json)


@app.command("list")
@paged
def list_pins(ctx: typer.Context, as_json: Json = False) -> None:
    """List the pinned skills."""
    from atom_saas_sync.usecases.gate.documents import pin_document

    with open_desk(ctx.obj) as desk, desk.store.deciding(write=False) as batch:
        pins = sorted(batch.gate.pins().values(), key=lambda each: each.skill_id)
    if as_json:
        print_json({"pins": [pin_document(each) for each in pins], "total": len(pins)})
        return
    columns = [
        Column("id"),
        Column("version", drop=1, cut=True),
        Column("digest", drop=4),
        Column("since", drop=2),
        Column("by", drop=3, cut=True),
        Column("note", drop=5, cut=True),
    ]
    lines = [
        [
            each.skill_id,
            each.version or "-",
            each.content_digest.hex()[:12],
            age(each.at),
            each.by,
            each.note or "",
        ]
        for each in pins
    ]
    print_table(columns, lines)
    note(counted(len(pins), "pinned skill"))


@app.command()
def remove(ctx: typer.Context, skill_ids: SkillIds, as_json: Json = False) -> None:
    """Remove pins; the next sync acts on it."""
    from atom_saas_sync.usecases.gate.pins_and_quarantine import remove_pin

    with open_desk(ctx.obj) as desk:
        removed = remove_pin(desk, skill_ids, actor=actor(), now=now())
    if as_json:
        print_json({"removed": removed, "total": len(removed)})
        return
    for each in removed:
        say(f"no longer pinned: {printable(each)}")
