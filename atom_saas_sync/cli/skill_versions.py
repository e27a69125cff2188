"""`skills diff` and `skills log`: compare and list the versions of a skill."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.identify import not_served, open_catalogue, whole_id
from atom_saas_sync.cli.output import console, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import NotFound
from atom_saas_sync.model import CachedSkill, PublishedVersion

if TYPE_CHECKING:
    from atom_saas_sync.core.comparison import FieldChange
    from atom_saas_sync.usecases.ports import EditableCatalogue, Store

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The skill's id, or its first 4 or more characters.")]


@paged
def diff(
    ctx: typer.Context,
    skill_id: _Id,
    old: Annotated[
        str,
        typer.Option("--from", metavar="VERSION", help="base, local, a number of `skills log`, a version or digest."),
    ] = "base",
    new: Annotated[str, typer.Option("--to", metavar="VERSION", help="As for --from.")] = "local",
    as_patch: Annotated[
        bool, typer.Option("--unified", help="Print a patch, as `diff -u` does; a file or pipe always gets that.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Compare two versions; by default, the local version with its base."""
    from atom_saas_sync.core.canonical import decode_object
    from atom_saas_sync.core.comparison import ABSENT, compare

    with open_catalogue(ctx.obj) as (store, edits, _):
        skill_id = whole_id(store, skill_id)
        (before_name, before), (after_name, after) = _texts(store, edits, skill_id, (old, new))
    left, right = decode_object(before) or {}, decode_object(after) or {}
    changes = compare(left, left, right)
    if as_json:
        rows = [
            {
                "name": change.name,
                "from": None if change.local is ABSENT else change.local,
                "to": None if change.remote is ABSENT else change.remote,
            }
            for change in changes
        ]
        print_json({"skill_id": skill_id, "from": before_name, "to": after_name, "fields": rows, "total": len(rows)})
        return
    shown_before, shown_after = printable(before_name), printable(after_name)
    if not changes:
        say(f"{shown_before} and {shown_after} are the same in every field that matters")
        return
    if as_patch or not sys.stdout.isatty():
        print_patch(changes, shown_before, shown_after)
        return
    from atom_saas_sync.cli.comparison import print_comparison

    print_comparison(console(), changes, left=shown_before, right=shown_after, tell_who=False)


@paged
def log(ctx: typer.Context, skill_id: _Id, as_json: _Json = False) -> None:
    """List all versions of a skill, the newest first: the marketplace's, and local ones that were replaced."""
    from atom_saas_sync.cli.tables import Column, print_table

    with open_catalogue(ctx.obj) as (store, edits, _):
        skill_id = whole_id(store, skill_id)
        edits.look_at_deleted_edits(skill_id)
        versions = store.history().versions(skill_id)
        if not versions and skill_id not in edits.known([skill_id]):
            raise not_served(store, skill_id)
    rows = [_facts(each) for each in versions]
    if as_json:
        print_json({"skill_id": skill_id, "versions": rows, "total": len(rows)})
        return
    lines = []
    for each in versions:
        state = "the base: what the marketplace has" if each.number is None else _state(each)
        number = "base" if each.number is None else f"#{each.number}"
        lines.append([number, each.version or "-", each.content_digest.hex()[:12], state])
    print_table(
        [
            Column("number"),
            Column("version", drop=1, cut=True),
            Column("digest", drop=3),
            Column("state", drop=2, cut=True),
        ],
        lines,
    )
    if not versions:
        say("the marketplace has never sent this skill: it exists only here")


def sent_skill(
    store: Store, edits: EditableCatalogue, skill_id: str, wanted: str
) -> tuple[CachedSkill, dict[str, Any]]:
    """Return a former version as a skill, with its record. Raises NotFound."""
    from atom_saas_sync.core.versions import choose_version

    versions = store.history().versions(skill_id)
    if not versions and skill_id not in edits.known([skill_id]):
        raise not_served(store, skill_id)
    chosen = choose_version(skill_id, versions, wanted)
    skill = CachedSkill(skill_id=skill_id, text=chosen.text, source=chosen.origin, confirmed_at=None, stale=False)
    return skill, _facts(chosen)


def version_state(facts: dict[str, Any]) -> str | None:
    """Describe the version that `sent_skill` returned."""
    if not facts:
        return None
    written = ", written here" if facts["origin"] == "local" else ""
    return "base" if facts["current"] else f"#{facts['number']}{written}, {facts['ended_by']} at {facts['ended_at']}"


def _state(version: PublishedVersion) -> str:
    from atom_saas_sync.times import time_text

    written = "written here, " if version.origin == "local" else ""
    return f"{written}{version.ended_by} at {time_text(version.ended_at)}"


def _facts(version: PublishedVersion) -> dict[str, Any]:
    from atom_saas_sync.times import time_text

    return {
        "number": version.number,
        "version": version.version,
        "current": version.number is None,
        "ended_at": time_text(version.ended_at),
        "ended_by": version.ended_by,
        "origin": version.origin,
        "content_digest": version.content_digest.hex(),
        "exec_digest": version.exec_digest.hex(),
    }


def _texts(store: Store, edits: EditableCatalogue, skill_id: str, wanted: Sequence[str]) -> list[tuple[str, str]]:
    """Return the display name and the text of each requested version."""
    from atom_saas_sync.core.versions import choose_version, version_name

    versions = store.history().versions(skill_id)
    known = edits.known([skill_id]).get(skill_id)
    local = None if known is None else known.local_text
    if not versions and local is None:
        raise not_served(store, skill_id)
    found = []
    for each in wanted:
        if each != "local":
            chosen = choose_version(skill_id, versions, each)
            found.append((version_name(chosen, each), chosen.text))
        elif local is not None:
            found.append(("local", local))
        else:
            raise NotFound(f"{printable(skill_id)!r} is no longer in the cache: there is no local version")
    return found


def print_patch(changes: Sequence[FieldChange], before: str, after: str) -> None:
    """Print a patch, without rich, which would take minutes for a million lines."""
    from atom_saas_sync.core.unified import unified_fields
    from atom_saas_sync.logs import may_colour

    lines = "\n".join(unified_fields(changes, before, after))
    flat = lines.replace("\n", " ").replace("\t", " ")
    if printable(flat) != flat:
        # Tabs stay: `patch` needs them.
        lines = "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines.split("\n"))
    if may_colour(sys.stdout):
        lines = re.sub(r"^(?:(---|\+\+\+) .*|-.*|(\+.*)|(@.*))$", _coloured, lines, flags=re.MULTILINE)
    sys.stdout.write(f"{lines}\n")
    sys.stdout.flush()


def _coloured(found: re.Match[str]) -> str:
    name, added, place = found.groups()
    colour = 1 if name else 32 if added else 36 if place else 31
    return f"\x1b[{colour}m{found[0]}\x1b[0m"
