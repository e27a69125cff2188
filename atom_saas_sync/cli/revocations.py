"""`revocations`: what must no longer be served, even if it was admitted (docs/TRUST.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.deciding import Json, Note, actor, now
from atom_saas_sync.cli.gate_session import open_desk
from atom_saas_sync.cli.output import age, counted, note, print_json, print_some, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_table
from atom_saas_sync.errors import NotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atom_saas_sync.core.gate.types import Revocation

app = typer.Typer(help="Take skills, versions or publishers out of service.", no_args_is_help=True)

_Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="A skill, by its full id.")]
_Version = Annotated[str | None, typer.Option("--version", metavar="VERSION", help="With --id: only this version.")]
_Digest = Annotated[
    str | None, typer.Option("--digest", metavar="DIGEST", help="A content digest; 12 or more digits are enough.")
]
_Publisher = Annotated[
    str | None, typer.Option("--publisher", metavar="NAME", help="Everything by this publisher, compared without case.")
]


@app.command()
def add(
    ctx: typer.Context,
    skill_id: _Id = None,
    version: _Version = None,
    digest: _Digest = None,
    publisher: _Publisher = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Revoke something, and move matching skills from the cache into quarantine, in one transaction.

    Needs no marketplace.
    """
    from atom_saas_sync.usecases.gate.pins_and_quarantine import add_revocation

    _check(skill_id, version, digest, publisher)
    with open_desk(ctx.obj) as desk:
        number, hit = add_revocation(
            desk,
            skill_id=skill_id,
            version=version,
            digest=digest,
            publisher=publisher,
            note=note,
            actor=actor(),
            now=now(),
        )
        with desk.store.deciding(write=False) as batch:
            entries = batch.gate.revocations().entries
    if as_json:
        from atom_saas_sync.usecases.gate.documents import revocation_document

        [row] = [revocation_document(each) for each in entries if each.id == number]
        print_json({"revocation": row, "quarantined": [{"skill_id": each} for each in hit], "total": len(hit)})
        return
    say(f"revocation {number}: {counted(len(hit), 'skill')} moved into quarantine")
    print_some(hit)


@app.command("list")
@paged
def list_revocations(ctx: typer.Context, as_json: Json = False) -> None:
    """List the revocations in force, including those of the revocations file."""
    from atom_saas_sync.usecases.gate.documents import revocation_document

    with open_desk(ctx.obj) as desk:
        found = desk.load().gate.revocations.entries
    if as_json:
        print_json({"revocations": [revocation_document(each) for each in found], "total": len(found)})
        return
    columns = [
        Column("number", right=True),
        Column("revoked", cut=True, least=20),
        Column("since", drop=2),
        Column("by", drop=3, cut=True),
        Column("note", drop=4, cut=True),
    ]
    print_table(columns, [_line(each) for each in found])
    note(counted(len(found), "revocation"))


@app.command()
def remove(
    ctx: typer.Context,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="NUMBER…", max=10**9, help="As `revocations list` shows them.")
    ] = None,
    skill_id: _Id = None,
    version: _Version = None,
    digest: _Digest = None,
    publisher: _Publisher = None,
    as_json: Json = False,
) -> None:
    """Remove revocations, by number or by what they name.

    What they hit stays in quarantine until `quarantine release`.
    """
    from atom_saas_sync.usecases.gate.pins_and_quarantine import remove_revocation

    selected = any(each is not None for each in (skill_id, version, digest, publisher))
    if selected == bool(numbers):
        raise UsageError("which revocation?", hint="give its number, or --id, --digest or --publisher")
    if selected:
        _check(skill_id, version, digest, publisher)
    with open_desk(ctx.obj) as desk:
        if selected:
            with desk.store.deciding(write=False) as batch:
                entries = batch.gate.revocations().entries
            numbers = _named(entries, skill_id, version, digest, publisher)
        removed = remove_revocation(desk, numbers or [], actor=actor(), now=now())
    if as_json:
        print_json({"removed": removed, "total": len(removed)})
        return
    for each in removed:
        say(f"removed: revocation {each}")


def _check(skill_id: str | None, version: str | None, digest: str | None, publisher: str | None) -> None:
    if sum(each is not None for each in (skill_id, digest, publisher)) != 1:
        raise UsageError("give one of --id, --digest and --publisher")
    if version is not None and skill_id is None:
        raise UsageError("--version requires --id")


def _named(
    entries: Iterable[Revocation], skill_id: str | None, version: str | None, digest: str | None, publisher: str | None
) -> list[int]:
    """Return the ids of the revocations with exactly this target. Raises NotFound and UsageError."""
    from atom_saas_sync.core.gate.digests import parse_digits
    from atom_saas_sync.core.gate.names import folded

    digits = None if digest is None else parse_digits(digest)
    wanted = (skill_id, version, publisher and folded(publisher))
    found = [
        each.id
        for each in entries
        if each.id is not None
        and (each.skill_id, each.version, each.publisher and folded(each.publisher)) == wanted
        and (each.digest is not None and each.digest.hex().startswith(digits) if digits else each.digest is None)
    ]
    if not found:
        raise NotFound("there is no such revocation", hint="`atom-sync revocations list` shows them")
    return found


def _line(revocation: Revocation) -> list[str]:
    from atom_saas_sync.core.gate.revocations import describe

    return [
        "file" if revocation.source == "file" else str(revocation.id),
        describe(revocation),
        "" if revocation.added_at is None else age(revocation.added_at),
        printable(revocation.added_by or ""),
        revocation.note or "",
    ]
