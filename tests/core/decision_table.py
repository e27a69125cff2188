"""The decision table of docs/CONFLICTS.md, generated from the code."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from atom_saas_sync.core.canonical import stored_version, version_from_fields, version_key
from atom_saas_sync.core.gate.admission import admitted_before
from atom_saas_sync.core.plan import plan_deleted, plan_listed
from atom_saas_sync.model import (
    STRATEGIES,
    Action,
    Base,
    OpenConflict,
    SkillState,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.model.effects import DropBase, MarkDeleted, RemoveServed, SetBase, UnmarkDeleted, WriteServed


def skill(**fields: str) -> SkillVersion:
    return version_from_fields("s", {"skill_id": "s", "name": "S", **fields})


NOW = datetime(2026, 6, 1, tzinfo=UTC)

# Both sides changed the code, and each one another field, so that the merge differs from both.
BASE = skill(code="a", description="a", version="1")
LOCAL = skill(code="l", description="l", version="1")
REMOTE = skill(code="r", description="a", version="2", category="r")
NEWER = skill(code="n", description="a", version="3", category="n")
MERGED = skill(code="l", description="l", version="2", category="r")
MERGED_NEWER = skill(code="l", description="l", version="3", category="n")
MERGED_WITHOUT_BASE = skill(code="l", description="l", version="1+merged+2", category="r")
NAMES = {
    version.content_digest: name
    for name, version in {
        "A": BASE,
        "L": LOCAL,
        "R": REMOTE,
        "N": NEWER,
        "merge of A, L, R": MERGED,
        "merge of A, L, N": MERGED_NEWER,
        "merge of L, R": MERGED_WITHOUT_BASE,
    }.items()
}
VERSIONS = {"A": BASE, "L": LOCAL, "R": REMOTE, "N": NEWER}


class Cell(NamedTuple):
    """The state before: names of versions, `-` for none."""

    base: str
    local: str
    remote: str
    waits: str = "-"


CELLS = (
    Cell("-", "-", "R"),
    Cell("A", "A", "A"),
    Cell("A", "A", "R"),
    Cell("A", "A", "-"),
    Cell("A", "L", "A"),
    Cell("A", "L", "R"),
    Cell("A", "R", "R"),
    Cell("A", "L", "-"),
    Cell("A", "-", "A"),
    Cell("A", "-", "R"),
    Cell("A", "-", "-"),
    Cell("-", "L", "R"),
    Cell("-", "R", "R"),
    Cell("-", "L", "-"),
)
WAITING_CELLS = (
    Cell("A", "L", "R", "R"),
    Cell("A", "L", "N", "R"),
    Cell("A", "L", "A", "R"),
    Cell("A", "R", "R", "R"),
    Cell("A", "A", "R", "R"),
    Cell("A", "-", "R", "R"),
    Cell("A", "L", "-", "R"),
    Cell("A", "L", "-", "deleted"),
    Cell("A", "L", "A", "deleted"),
    Cell("A", "L", "R", "deleted"),
    Cell("A", "A", "-", "deleted"),
    Cell("-", "L", "-", "R"),
    Cell("A", "L", "R", "R, undone"),
)


def known_of(cell: Cell) -> SkillState | None:
    base = None
    if cell.base != "-":
        version = VERSIONS[cell.base]
        # As in the store: the base text is kept only if the cached text differs.
        kept = cell.waits != "-" or cell.local != cell.base
        base = Base(
            wire_digest=version.wire_digest,
            content_digest=version.content_digest,
            exec_digest=version.exec_digest,
            text=version.text if kept else None,
            page=1,
            deleted=cell.waits == "deleted",
            version=version_key(version.fields),
        )
    local = None if cell.local == "-" else VERSIONS[cell.local].text
    if base is None and local is None:
        return None
    waiting = None
    if cell.waits != "-":
        name = cell.waits.partition(",")[0]
        remote = None if name == "deleted" else VERSIONS[name].text
        waiting = OpenConflict(7, remote, reopened=cell.waits.endswith("undone"))
    return SkillState("s", local, "2026-01-01T00:00:00Z", base, waiting)


def decide(cell: Cell, strategy: Strategy) -> Action | None:
    known = known_of(cell)
    if cell.remote != "-":
        return plan_listed(known, admitted_before(VERSIONS[cell.remote]), strategy, NOW)
    assert known is not None
    return plan_deleted(known, strategy)


def outcome(cell: Cell, action: Action | None) -> tuple[str, str, str]:
    """Return the resulting contents of cache, base and log, in the words of the table."""
    if action is None:
        return cell.local, cell.base if cell.waits != "deleted" else f"{cell.base}, deleted", "-"
    cache, base = cell.local, f"{cell.base}, deleted" if cell.waits == "deleted" else cell.base
    for effect in action.effects:
        match effect:
            case WriteServed(text=text):
                cache = name_of(text)
            case RemoveServed():
                cache = "-"
            case SetBase(version=version):
                base = name_of(version.text)
            case DropBase():
                base = "-"
            case MarkDeleted():
                base = f"{cell.base}, deleted"
            case UnmarkDeleted():
                base = cell.base
    return cache, base, _log(action)


def name_of(text: str | None) -> str:
    if text is None:
        return "-"
    version = stored_version("s", text)
    assert version is not None
    return NAMES[version.content_digest]


def _log(action: Action) -> str:
    entry = action.conflict
    if entry is None:
        return "-"
    if entry.resolution is None:
        return "open, updated" if entry.waiting_id else "open"
    return "closes: converged" if entry.resolution.strategy == "converged" else f"resolved: {entry.resolution.strategy}"


def table(cells: tuple[Cell, ...]) -> str:
    """Return the rows as Markdown; strategies with the same result share a row."""
    waiting = any(cell.waits != "-" for cell in cells)
    heads = ["base", "local", "remote", *(["open conflict"] if waiting else []), "strategy", "cache", "base", "log"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for cell in cells:
        results: dict[tuple[str, str, str], list[str]] = {}
        for strategy in STRATEGIES:
            cache, base, log = outcome(cell, decide(cell, strategy))
            log = log.replace(f"resolved: {strategy}", "resolved: strategy")
            results.setdefault((cache, base, log), []).append(strategy)
        for (cache, base, log), strategies in results.items():
            which = "any" if len(strategies) == len(STRATEGIES) else ", ".join(f"`{name}`" for name in strategies)
            before = [cell.base, cell.local, cell.remote, *([_waits(cell)] if waiting else [])]
            lines.append("| " + " | ".join([*before, which, cache, base, log]) + " |")
    return "\n".join(lines)


def _waits(cell: Cell) -> str:
    return "deletion" if cell.waits == "deleted" else f"with {cell.waits}"
