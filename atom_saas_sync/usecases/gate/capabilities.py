"""What waiting updates can newly do: found once for each content digest, and stored."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atom_saas_sync.core.canonical import content_digest, decode_object
from atom_saas_sync.core.gate.capabilities import compare_facts, facts_of
from atom_saas_sync.core.gate.facts import Capabilities, Fact
from atom_saas_sync.core.gate.stored import WaitingOffer
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.usecases.gate.desk import GateDesk

log = logging.getLogger(__name__)

# A version takes milliseconds: whoever interrupts a long list finds most of them stored the next time.
_AT_ONCE = 100


def capabilities_of(desk: GateDesk, waiting: Sequence[WaitingOffer]) -> Iterator[Capabilities]:
    """Yield the capabilities of each of these updates."""
    for start in range(0, len(waiting), _AT_ONCE):
        yield from _of_some(desk, waiting[start : start + _AT_ONCE])


def served_fields(waiting: WaitingOffer) -> Mapping[str, Any] | None:
    """Return what is served of a skill with an update; None if nothing is."""
    return None if waiting.served_digest is None or waiting.served_text is None else decode_object(waiting.served_text)


def _of_some(desk: GateDesk, waiting: Sequence[WaitingOffer]) -> Iterator[Capabilities]:
    versions: dict[bytes, Mapping[str, Any]] = {}
    pairs: list[tuple[bytes, bytes]] = []
    for each in waiting:
        sides = served_fields(each) or {}, decode_object(each.offer.text) or {}
        pair = content_digest(sides[0]), content_digest(sides[1])
        versions.update(zip(pair, sides, strict=True))
        pairs.append(pair)
    with desk.store.deciding(write=False) as batch:
        facts = batch.kept_facts(versions)
    new = {digest: facts_of(fields) for digest, fields in versions.items() if digest not in facts}
    if new:
        _keep(desk, new)
        facts |= new
    for before, after in pairs:
        yield compare_facts(facts[before], facts[after])


def _keep(desk: GateDesk, found: Mapping[bytes, frozenset[Fact]]) -> None:
    try:
        with desk.store.deciding() as batch:
            batch.keep_facts(found)
    except DatabaseError as error:  # the list needs nothing written
        log.debug("cannot store capabilities: %s", error)
