"""What users' decisions about updates need, and the steps that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.model import SkillState, SkillVersion, Strategy

if TYPE_CHECKING:
    from atom_saas_sync.core.gate.types import Evidence, Gate, Offer, Served
    from atom_saas_sync.usecases.gate.loading import LoadedGate
    from atom_saas_sync.usecases.ports.gate_desk import DecidingBatch, GateStore
    from atom_saas_sync.usecases.ports.gate_edges import Scanner


class GateDesk(Struct, frozen=True):
    """The gate's tables, the policy in force, and the conflict strategy.

    `load` raises ConfigError for an invalid policy. `scanner` is None without a scan command; `check` raises to end a
    scan.
    """

    store: GateStore
    load: Callable[[], LoadedGate]
    strategy: Strategy
    scanner: Scanner | None = None
    check: Callable[[], None] = lambda: None


class OnTheDesk(Struct, frozen=True):
    """What is stored about the skills that a user decides about."""

    known: Mapping[str, SkillState]
    offers: Mapping[str, Offer]
    versions: Mapping[str, SkillVersion]
    evidence: Mapping[str, Evidence]


def strict_gate(desk: GateDesk) -> Gate:
    """Return the gate for decisions that admit something. Also raises ConfigError for an invalid revocations file."""
    loaded = desk.load()
    if loaded.problem is not None:
        raise loaded.problem
    return loaded.gate


def put_on_the_desk(batch: DecidingBatch, skill_ids: Iterable[str]) -> OnTheDesk:
    """Read what is stored about skills, in the transaction of the decision."""
    ids = list(dict.fromkeys(skill_ids))
    offers = batch.gate.offers(ids)
    versions = {name: version for name, offer in offers.items() if (version := stored_version(name, offer.text))}
    return OnTheDesk(batch.known(ids), offers, versions, batch.gate.evidence(versions.values()))


def served_of(known: SkillState | None) -> Served | None:
    """Return the base of a skill in the gate's form."""
    from atom_saas_sync.core.plan import offered
    from atom_saas_sync.core.plan.sides import Sides

    return None if known is None else offered.served_of(Sides(known))


def is_digest(digits: str, digest: bytes) -> bool:
    """Tell whether the digest begins with these hexadecimal digits."""
    return digest.hex().startswith(digits)
