"""JSON documents of updates and decisions, shared by commands and HTTP (docs/API_DOCUMENTATION.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.comparison import ABSENT, FieldChange, compare
from atom_saas_sync.core.gate.digests import digest_text
from atom_saas_sync.core.gate.facts import Capabilities, Fact
from atom_saas_sync.core.gate.types import Pin, Quarantined, Revocation
from atom_saas_sync.times import format_time
from atom_saas_sync.usecases.gate.reports import Decided, Refused, ShownUpdate, Update


def update_document(update: Update) -> dict[str, Any]:
    """Return an update as in lists; `capabilities` is null unless requested."""
    return {
        "skill_id": update.skill_id,
        "name": update.name,
        "publisher": update.publisher,
        "served_version": update.served_version,
        "offered_version": update.offered_version,
        "served_digest": None if update.served_digest is None else digest_text(update.served_digest),
        "offered_digest": digest_text(update.offered_digest),
        "exec_changed": update.exec_changed,
        "reasons": list(update.reasons),
        "first_seen_at": format_time(update.first_seen_at),
        "due_at": _time(update.due_at),
        "note": update.note,
        "capabilities": None if update.capabilities is None else _capabilities(update.capabilities),
    }


def shown_document(shown: ShownUpdate) -> dict[str, Any]:
    """Return an update with the fields that differ from the served version."""
    fields = [
        {"name": change.name, "served": _value(change.local), "offered": _value(change.remote)}
        for change in changes_of(shown)
    ]
    return {**update_document(shown.update), "fields": fields}


def changes_of(shown: ShownUpdate) -> Sequence[FieldChange]:
    """Return the fields that differ: the served version is `local`, the offered one `remote`."""
    served = {} if shown.served_text is None else decode_object(shown.served_text) or {}
    return compare(served, served, decode_object(shown.offered_text) or {})


def decided_document(decided: Decided, verb: str) -> dict[str, Any]:
    """Return the result of a decision; `verb` names the list of affected skills, such as `approved`."""
    return {
        "success": decided.success,
        verb: [{"skill_id": each.skill_id, "digest": digest_text(each.digest)} for each in decided.done],
        "refused": refused_rows(decided.refused),
    }


def refused_rows(refused: Iterable[Refused]) -> list[dict[str, Any]]:
    """Return the refused skills, with the reasons."""
    return [{"skill_id": each.skill_id, "reason": each.reason} for each in refused]


def pin_document(pin: Pin) -> dict[str, Any]:
    """Return a pin."""
    return {
        "skill_id": pin.skill_id,
        "version": pin.version or None,
        "digest": digest_text(pin.content_digest),
        "note": pin.note,
        "pinned_at": format_time(pin.at),
        "pinned_by": pin.by,
    }


def revocation_document(revocation: Revocation) -> dict[str, Any]:
    """Return a revocation; one of the revocations file has no id."""
    return {
        "id": None if revocation.source == "file" else revocation.id,
        "skill_id": revocation.skill_id,
        "version": revocation.version,
        "digest": None if revocation.digest is None else digest_text(revocation.digest),
        "publisher": revocation.publisher,
        "note": revocation.note,
        "source": revocation.source,
        "added_at": _time(revocation.added_at),
        "added_by": revocation.added_by,
    }


def quarantine_document(found: Quarantined, *, whole: bool = False) -> dict[str, Any]:
    """Return a skill in quarantine; with `whole`, including its texts."""
    row: dict[str, Any] = {
        "skill_id": found.skill_id,
        "digest": digest_text(found.content_digest),
        "reason": found.reason,
        "note": found.note,
        "source": found.served_source,
        "quarantined_at": format_time(found.at),
        "quarantined_by": found.by,
    }
    if whole:
        row["skill"] = decode_object(found.text) or found.text
        row["base"] = None if found.base_text is None else decode_object(found.base_text) or found.base_text
    return row


def _capabilities(capabilities: Capabilities) -> dict[str, Any]:
    return {"added": _facts(capabilities.added), "removed": _facts(capabilities.removed)}


def _facts(facts: Iterable[Fact]) -> list[dict[str, str]]:
    return [{"kind": each.kind, "value": each.value} for each in facts]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _value(value: Any) -> Any:  # noqa: ANN401 - JSON
    return None if value is ABSENT else value
