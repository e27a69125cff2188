"""`quarantine`: take skills out of service and keep them unchanged as evidence (docs/TRUST.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.deciding import Json, Note, SkillIds, actor, end_refused, now
from atom_saas_sync.cli.gate_session import open_desk
from atom_saas_sync.cli.output import age, counted, note, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_table
from atom_saas_sync.errors import NotFound

if TYPE_CHECKING:
    from atom_saas_sync.usecases.gate.reports import Quarantining

app = typer.Typer(help="Take skills out of service, and put them back.", no_args_is_help=True)


@app.command()
def add(ctx: typer.Context, skill_ids: SkillIds, note: Note = None, as_json: Json = False) -> None:
    """Take skills out of service. Until they are released, the marketplace's versions do not replace them."""
    from atom_saas_sync.usecases.gate.pins_and_quarantine import quarantine

    with open_desk(ctx.obj) as desk:
        done = quarantine(desk, skill_ids, note=note, actor=actor(), now=now())
    _tell(done, "quarantined", as_json=as_json)


@app.command("list")
@paged
def list_quarantined(ctx: typer.Context, as_json: Json = False) -> None:
    """List the skills in quarantine."""
    from atom_saas_sync.usecases.gate.documents import quarantine_document

    with open_desk(ctx.obj) as desk, desk.store.deciding(write=False) as batch:
        found = sorted(batch.gate.quarantined().values(), key=lambda each: each.skill_id)
    if as_json:
        print_json({"quarantined": [quarantine_document(each) for each in found], "total": len(found)})
        return
    columns = [
        Column("id"),
        Column("reason", drop=1),
        Column("since", drop=2),
        Column("by", drop=3, cut=True),
        Column("note", drop=4, cut=True),
    ]
    lines = [[each.skill_id, each.reason, age(each.at), each.by, each.note or ""] for each in found]
    print_table(columns, lines)
    note(f"{counted(len(found), 'skill')} in quarantine")


@app.command()
@paged
def show(
    ctx: typer.Context,
    skill_id: Annotated[str, typer.Argument(metavar="ID", help="The skill's full id.")],
    as_json: Json = False,
) -> None:
    """Show a skill in quarantine as it was served."""
    from atom_saas_sync.usecases.gate.documents import quarantine_document

    with open_desk(ctx.obj) as desk, desk.store.deciding(write=False) as batch:
        found = batch.gate.quarantined([skill_id]).get(skill_id)
    if found is None:
        raise NotFound(
            f"{printable(skill_id)!r} is not in quarantine", hint="`atom-sync quarantine list` shows what is"
        )
    if as_json:
        print_json({"skill": quarantine_document(found, whole=True)})
        return
    from atom_saas_sync.cli.update_views import print_quarantined

    print_quarantined(found)


@app.command()
def release(ctx: typer.Context, skill_ids: SkillIds, as_json: Json = False) -> None:
    """Put skills back, byte for byte; refused while a revocation hits them."""
    from atom_saas_sync.usecases.gate.pins_and_quarantine import release as release_skills

    with open_desk(ctx.obj) as desk:
        done = release_skills(desk, skill_ids, actor=actor(), now=now())
    _tell(done, "released", as_json=as_json)


def _tell(done: Quarantining, verb: str, *, as_json: bool) -> None:
    from atom_saas_sync.usecases.gate.documents import refused_rows

    if as_json:
        rows = [{"skill_id": each} for each in done.done]
        print_json({"success": done.success, verb: rows, "refused": refused_rows(done.refused)})
    else:
        for each in done.done:
            say(f"{verb}: {printable(each)}")
    end_refused(done.refused)
