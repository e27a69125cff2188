"""What the gate reads of the store besides the evidence."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from atom_saas_sync.core.gate.types import Offer


class WaitingOffer(Struct, frozen=True):
    """A version that waits, and what is served meanwhile: of a new skill, and of one that is only here, no digests."""

    offer: Offer
    served_text: str | None
    served_digest: bytes | None
    served_exec_digest: bytes | None


class Marks(Struct, frozen=True):
    """What the gate remembers from run to run; None before the first.

    `policy` is the admission of the last run, `judged` the fingerprint with which all that waits was judged last,
    `clock` when a run last looked at the clock. `revocations_broken`: it could not use the revocations file.
    """

    policy: str | None = None
    judged: bytes | None = None
    clock: datetime | None = None
    revocations_broken: bool | None = None


class ServedSkill(Struct, frozen=True):
    """A cached skill as it must be verified; texts are the stored bytes.

    `base_text` is the marketplace's text if that is kept apart, and the digests and `version` are of the base: without
    a base the skill exists only here. `is_forged`: the signature is by our key, and of something else. `is_waiting`: a
    newer version waits. `is_quarantined`: what is in the cache is what was put into quarantine.
    """

    skill_id: str
    text: bytes
    base_text: bytes | None = None
    wire_digest: bytes | None = None
    content_digest: bytes | None = None
    exec_digest: bytes | None = None
    version: str | None = None
    admitted_at: str | None = None
    admitted_by: str | None = None
    is_forged: bool = False
    is_waiting: bool = False
    is_quarantined: bool = False
    stale: bool = False
