"""`skills verify`: check that what is served is what was admitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import complain, counted, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.gate.lock_file import Difference
    from atom_saas_sync.core.gate.types import Revocation
    from atom_saas_sync.usecases.gate.verify import Verified, VerifiedSkill
    from atom_saas_sync.usecases.ports import Store

_NOT_VERIFIED = 4
_DIGITS = 12


@paged
def verify(
    ctx: typer.Context,
    skill_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID…", help="Skills to verify. Default: all that are served."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Show only this state: ok, edited, stale, held, tampered, quarantined, revoked or unknown.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also fail for skills that were edited here.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Recompute all digests.")] = False,
    lock: Annotated[
        Path | None,
        typer.Option("--lock", metavar="FILE", help="Also compare with this lock file; - is standard input."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check that what is served is what was admitted; exit with 4 if anything is not."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.identify import whole_id
    from atom_saas_sync.core.gate.states import STATES
    from atom_saas_sync.store import open_store
    from atom_saas_sync.usecases.gate.verify import verify as verify_skills

    if state is not None and state not in STATES:
        raise UsageError(f"invalid --state {printable(state)!r}: expected {', '.join(STATES)}")
    settings = runtime.settings_of(ctx.obj)
    with open_store(settings.database, read_only=True) as store:
        wanted = list(dict.fromkeys(whole_id(store, each) for each in skill_ids)) if skill_ids else None
        drift = None if lock is None else _drift(settings, store, lock, wanted)
        found = verify_skills(
            store.serving(runtime.signer_of(settings)),
            wanted,
            listed=_listed(settings),
            strict=strict,
            full=full,
        )
    shown = [each for each in found.skills if state in (None, each.state)]
    if as_json:
        print_json(_document(found, shown, drift))
    else:
        _print(found, shown, everything=wanted is not None or state is not None)
        for each in drift or ():
            say(f"drift  {each.kind:9}  {printable(each.skill_id)}")
    if not found.success or drift:
        raise typer.Exit(_NOT_VERIFIED)


def _listed(settings: Settings) -> tuple[Revocation, ...]:
    """Return the current list of the revocations file; if it is invalid, the stored last valid list."""
    if settings.revocations_file is None:
        return ()
    from atom_saas_sync.config.gate import SettingsFiles
    from atom_saas_sync.core.gate.revocations import parse_revocations

    try:
        file = SettingsFiles(settings).revocations()
        return () if file is None else parse_revocations(file[1], file[0])
    except ConfigError as error:
        complain(f"{error.message}; the last valid list of revocations counts")
        return ()


def _drift(settings: Settings, store: Store, path: Path, skill_ids: list[str] | None) -> list[Difference]:
    from atom_saas_sync.cli.lock import read_lock, served_lock
    from atom_saas_sync.core.gate.lock_file import compare

    lock, _ = read_lock(settings, path)
    differences = compare(lock, served_lock(settings, store).skills)
    return [each for each in differences if skill_ids is None or each.skill_id in skill_ids]


def _document(found: Verified, shown: list[VerifiedSkill], drift: list[Difference] | None) -> dict[str, Any]:
    from atom_saas_sync.core.gate.digests import digest_text

    def text(digest: bytes | None) -> str | None:
        return None if digest is None else digest_text(digest)

    compared = {each.skill_id: each.kind for each in drift or ()}
    rows = [
        {
            "skill_id": each.skill_id,
            "state": each.state,
            "version": each.version,
            "content_digest": text(each.content_digest),
            "exec_digest": text(each.exec_digest),
            "admitted_at": each.admitted_at,
            "admitted_by": each.admitted_by,
            **({} if drift is None else {"drift": compared.get(each.skill_id)}),
        }
        for each in shown
    ]
    return {
        "success": found.success and not drift,
        "skills": rows,
        "total": len(rows),
        "states": dict(found.states),
        **({} if drift is None else {"drift": [{"skill_id": each.skill_id, "kind": each.kind} for each in drift]}),
    }


def _print(found: Verified, shown: list[VerifiedSkill], *, everything: bool) -> None:
    """Print the named skills; without names, only those that are not `ok`."""
    from atom_saas_sync.cli.tables import Column, print_table

    rows = [each for each in shown if everything or each.state != "ok"]
    if rows:
        columns = [Column("state"), Column("id"), Column("version", drop=2, cut=True), Column("admitted", drop=1)]
        print_table(
            columns,
            [
                [
                    each.state,
                    printable(each.skill_id),
                    printable(each.version or ""),
                    f"{each.admitted_at} by {printable(each.admitted_by or '')}" if each.admitted_at else "",
                ]
                for each in rows
            ],
        )
    states = ", ".join(f"{number:,} {state}" for state, number in sorted(found.states.items()))
    say(f"{counted(sum(found.states.values()), 'skill')} verified{f': {states}' if states else ''}")
