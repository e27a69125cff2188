"""`skills edit`, `import`, `revert`, `restore` and `delete`: what changes the local version."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.asking import confirm_loss
from atom_saas_sync.cli.identify import not_served, open_catalogue, whole_id
from atom_saas_sync.cli.output import counted, file_name, print_json, read_text, say
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import CachedSkill

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import EditableCatalogue

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before local work is lost.")]
_Id = Annotated[str, typer.Argument(metavar="ID", help="The skill's id, or its first 4 or more characters.")]


def edit(
    ctx: typer.Context,
    skill_id: _Id,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field: text as it is, others as JSON; @FILE reads the value from a file; repeatable.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Read the whole skill as JSON from FILE; - is standard input."),
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Edit the code alone, as a file of its language (.py, .sh, .js, .md).")
    ] = False,
    new_fields: Annotated[
        bool, typer.Option("--new-field", help="Let --set add a field that is not in the contract.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Edit the local version, in $EDITOR by default. Syncs never overwrite it silently."""
    from atom_saas_sync.core.documents import read_one
    from atom_saas_sync.usecases.edit_skills import set_fields

    if (bool(changes), file is not None, code).count(True) > 1:
        raise UsageError("--set, --file and --code exclude each other")
    with open_catalogue(ctx.obj, adopt=True) as (store, catalogue, reading):
        skill_id = whole_id(store, skill_id)
        skill = reading.skill(skill_id)
        if skill is None:
            raise not_served(store, skill_id)
        if file is not None:
            text = read_one(read_text(file), file_name(file))
            changed = _store_edit(catalogue, skill_id, text, seen=None)
        elif changes:
            text = set_fields(skill.text, _values(changes), new_fields=new_fields)
            changed = _store_edit(catalogue, skill_id, text, seen=skill.text)
        else:
            changed = _edit_by_hand(catalogue, skill, code=code, may_ask=not as_json)
    _tell(skill_id, "edited" if changed else "nothing was changed", changed=changed, as_json=as_json)


def import_skills(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="JSON or JSON lines; - is standard input.")],
    as_json: _Json = False,
) -> None:
    """Add skills, or edit those that exist. If one is invalid, none is imported."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.documents import read_skills
    from atom_saas_sync.usecases.edit_skills import Candidate
    from atom_saas_sync.usecases.edit_skills import import_skills as do_import

    candidates = [
        Candidate(place, raw) for path in files for place, raw in read_skills(read_text(path), file_name(path))
    ]
    with open_catalogue(ctx.obj, create=True, adopt=True) as (_, catalogue, _):
        done = do_import(catalogue, candidates, actor=runtime.current_user(), now=datetime.now(UTC))
    if as_json:
        print_json({"added": done.added, "updated": done.updated, "unchanged": done.unchanged})
    else:
        say(f"{done.added} added, {done.updated} changed, {done.unchanged} unchanged")


def revert(
    ctx: typer.Context,
    skill_ids: Annotated[
        list[str], typer.Argument(metavar="ID…", help="Skill ids, or their first 4 or more characters.")
    ],
    yes: _Yes = False,
    as_json: _Json = False,
) -> None:
    """Put local versions back to what the marketplace sent last; of several edits, it lists them and asks."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.edit_skills import edits_of, revert_skills

    with open_catalogue(ctx.obj, adopt=True) as (store, catalogue, _):
        ids = list(dict.fromkeys(whole_id(store, each) for each in skill_ids))
        edits = edits_of(catalogue, ids)
        if len(ids) > 1:
            _confirm(edits, "Revert them? The history keeps them.", yes=yes, as_json=as_json)
        done = revert_skills(catalogue, ids, actor=runtime.current_user(), now=datetime.now(UTC), seen=edits)
    if len(ids) == 1:
        what = "reverted" if done else "not edited"
        _tell(ids[0], what, changed=bool(done), as_json=as_json)
    elif as_json:
        rows = [{"skill_id": each, "changed": each in done} for each in ids]
        print_json({"skills": rows, "total": len(rows)})
    else:
        say(f"{counted(len(done), 'skill')} reverted, {len(ids) - len(done)} not edited")


def restore(
    ctx: typer.Context,
    skill_id: _Id,
    version: Annotated[
        str, typer.Option("--version", metavar="N|DIGEST", help="A former version, as `skills log` lists them.")
    ],
    as_json: _Json = False,
) -> None:
    """Put a former version back as a local edit; the history keeps what it replaces."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.skill_versions import sent_skill
    from atom_saas_sync.usecases.edit_skills import restore_version

    with open_catalogue(ctx.obj, adopt=True) as (store, catalogue, _):
        skill_id = whole_id(store, skill_id)
        former, _facts = sent_skill(store, catalogue, skill_id, version)
        changed = restore_version(
            catalogue, skill_id, former.text, version=version, actor=runtime.current_user(), now=datetime.now(UTC)
        )
    what = f"version {printable(version)} restored" if changed else f"it is version {printable(version)} already"
    _tell(skill_id, what, changed=changed, as_json=as_json)


def delete(
    ctx: typer.Context,
    skill_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Full ids of skills that exist only here.")],
    yes: _Yes = False,
    as_json: _Json = False,
) -> None:
    """Remove skills that exist only here; the history keeps their last texts."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.edit_skills import delete_skills, edits_of, refuse_to_delete

    ids = list(dict.fromkeys(skill_ids))
    with open_catalogue(ctx.obj, adopt=True) as (_, catalogue, _):
        refuse_to_delete(catalogue, ids)
        edits = edits_of(catalogue, ids)
        _confirm(edits, "Delete them? `atom-sync skills restore` brings them back.", yes=yes, as_json=as_json)
        delete_skills(catalogue, ids, actor=runtime.current_user(), now=datetime.now(UTC), seen=edits)
    if as_json:
        print_json({"deleted": ids, "total": len(ids)})
        return
    for each in ids:
        say(f"{printable(each)}: deleted")


def _confirm(edits: dict[str, str], question: str, *, yes: bool, as_json: bool) -> None:
    from atom_saas_sync.core.canonical import decode_object

    names = {skill_id: (decode_object(text) or {}).get("name") for skill_id, text in edits.items()}
    lines = [f"{skill_id}  {name}" if isinstance(name, str) else skill_id for skill_id, name in names.items()]
    confirm_loss(lines, what=counted(len(lines), "local edit"), question=question, yes=yes, as_json=as_json)


def _store_edit(catalogue: EditableCatalogue, skill_id: str, text: str, *, seen: str | None) -> bool:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.usecases.edit_skills import edit_skill

    return edit_skill(catalogue, skill_id, text, seen=seen, actor=runtime.current_user(), now=datetime.now(UTC))


def _edit_by_hand(catalogue: EditableCatalogue, skill: CachedSkill, *, code: bool, may_ask: bool) -> bool:
    from atom_saas_sync.cli.editor import EditedFile, edited, keeping, pretty
    from atom_saas_sync.core.canonical import decode_object, no_object
    from atom_saas_sync.core.documents import read_one
    from atom_saas_sync.core.suffixes import code_suffix
    from atom_saas_sync.usecases.edit_skills import check_edit, set_fields

    if code:
        fields = decode_object(skill.text)
        if fields is None:
            raise UsageError(
                f"the code of the stored text can't be edited alone: {no_object(skill.text)}",
                hint="omit --code to edit all of it",
            )
        before = fields.get("code")
        before = before if isinstance(before, str) else ""
        # Editors append a final newline, which alone is not a change.
        added = "" if before.endswith("\n") else "\n"
        file = EditedFile(before + added, name=f"code{code_suffix(fields.get('skill_type'), before)}")
    else:
        file = EditedFile(pretty(skill.text), name="skill.json")

    def check(text: str) -> str:
        whole = set_fields(skill.text, {"code": text.removesuffix(added)}) if code else read_one(text, file.shown)
        check_edit(catalogue, skill.skill_id, whole, name=file.shown)
        return whole

    with keeping(file):
        text = edited(file, check, may_ask=may_ask and sys.stdin.isatty() and sys.stderr.isatty())
        return text is not None and _store_edit(catalogue, skill.skill_id, text, seen=skill.text)


def _values(texts: list[str]) -> dict[str, Any]:
    """Parse FIELD=VALUE: a text field takes the value literally, any other as JSON if it is valid."""
    from atom_saas_sync.core.documents import Problem, check_text, read_value
    from atom_saas_sync.core.incoming.fields import TEXT_FIELDS, TIME_FIELDS

    values: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise UsageError(f"invalid --set {printable(text)!r}: expected FIELD=VALUE")
        if value.startswith("@"):
            value = read_text(Path(value[1:]))
        try:
            values[name] = check_text(value) if name in (*TEXT_FIELDS, *TIME_FIELDS) else read_value(value)
        except Problem as problem:
            raise UsageError(f"invalid --set {printable(name)}: {problem}", hint="nothing was changed") from problem
    return values


def _tell(skill_id: str, what: str, *, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"skill_id": skill_id, "changed": changed})
    else:
        say(f"{printable(skill_id)}: {what}")
