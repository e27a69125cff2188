"""The scan command: it runs outside any transaction, once per digest, and its result is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from atom_saas_sync.characters import short_id
from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.gate.stored import WaitingOffer
from atom_saas_sync.core.gate.types import ScanResult
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import with_clock
from atom_saas_sync.usecases.gate.passes import judge_ids
from atom_saas_sync.usecases.gate.reports import NOT_WAITING, Refused, Rescanned

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.gate_desk import GateStore
    from atom_saas_sync.usecases.ports.gate_edges import Scanner


log = logging.getLogger(__name__)

NOT_SCANNED = "not_scanned"
_TOGETHER = 50


def scan_waiting(
    store: GateStore, scanner: Scanner, skill_ids: Sequence[str], now: datetime, check: Callable[[], None]
) -> dict[str, ScanResult]:
    """Run the scan command for these offers; store and return the results, without timeouts."""
    results: dict[str, ScanResult] = {}
    digests: dict[str, bytes] = {}
    unsaved: list[ScanResult] = []

    def documents() -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(skill_ids), _TOGETHER):
            with store.deciding(write=False) as batch:
                found = batch.gate.waiting(skill_ids=skill_ids[start : start + _TOGETHER])
            for waiting in found:
                digests[waiting.offer.skill_id] = waiting.offer.content_digest
                yield waiting.offer.skill_id, _document(waiting)

    def save() -> None:
        if unsaved:
            with store.deciding() as batch:
                batch.gate.write_scans(unsaved)
            unsaved.clear()

    try:
        for skill_id, passed, note, timed_out in scanner.scan(documents(), check=check):
            if timed_out:
                log.warning("%s: %s; the next run scans it again", short_id(skill_id), note)
                continue
            log.info("scan of %s: %s", short_id(skill_id), "passed" if passed else f"not passed: {note or '-'}")
            results[skill_id] = ScanResult(digests[skill_id], passed, note, now)
            unsaved.append(results[skill_id])
            if len(unsaved) >= _TOGETHER:
                save()
    finally:  # results are kept, however the scan ends
        save()
    return results


def _document(waiting: WaitingOffer) -> bytes:
    text = waiting.served_text
    served = text if text is not None and decode_object(text) else "null"
    return f'{{"skill":{waiting.offer.text},"served":{served}}}'.encode()


def scan_what_waits(desk: GateDesk, now: datetime) -> list[str]:
    """Scan the offers that only lack a scan; return those with a result."""
    if desk.scanner is None:
        return []
    with desk.store.deciding(write=False) as batch:
        ids = batch.ids_to_scan()
    return list(scan_waiting(desk.store, desk.scanner, ids, now, desk.check)) if ids else []


def rescan(desk: GateDesk, skill_ids: Sequence[str] | None, *, actor: str, now: datetime) -> Rescanned:
    """Scan these waiting versions again (None: all that did not pass), and admit what is due.

    Raises ConfigError if there is no scan command.
    """
    loaded = desk.load()
    gate = with_clock(loaded.gate, loaded.marks, now, None)
    if desk.scanner is None or not gate.policy.scan_command:
        raise ConfigError("ATOM_SYNC_SCAN_COMMAND is not set: there is nothing to run", hint="set it, and run it again")
    store = desk.store
    wanted = None if skill_ids is None else list(dict.fromkeys(skill_ids))
    with store.deciding() as batch:
        found = batch.gate.waiting(reason="scan" if wanted is None else None, skill_ids=wanted)
        ids = [each.offer.skill_id for each in found]
        batch.gate.forget_scans({each.offer.content_digest for each in found})
        for skill_id in ids:
            batch.note(actor, "update rescan", skill_id, now)
    results = scan_waiting(store, desk.scanner, ids, now, desk.check)
    judge_ids(store, ids, gate, desk.strategy, now, actor=actor, check=desk.check)
    return Rescanned(
        passed=tuple(each for each in ids if each in results and results[each].passed),
        failed=tuple(
            Refused(each, results[each].note or "") for each in ids if each in results and not results[each].passed
        ),
        not_scanned=(
            *(Refused(each, NOT_SCANNED) for each in ids if each not in results),
            *(Refused(each, NOT_WAITING) for each in wanted or () if each not in ids),
        ),
    )
