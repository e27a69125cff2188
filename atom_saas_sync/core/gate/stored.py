"""Stored values that the gate reads, besides the evidence."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from atom_saas_sync.core.gate.types import Offer, Revocation


class WaitingOffer(Struct, frozen=True):
    """A waiting version and the served one; the served digests are None for a new or local skill."""

    offer: Offer
    served_text: str | None
    served_digest: bytes | None
    served_exec_digest: bytes | None


class Marks(Struct, frozen=True):
    """What the gate stores between runs; None before the first run.

    `policy` is the policy of the last run, `judged` the fingerprint with which all offers were last judged, `clock` the
    time at which a run last checked the clock. `revocations_broken`: the last run could not use the revocations file.
    """

    policy: str | None = None
    judged: bytes | None = None
    clock: datetime | None = None
    revocations_broken: bool | None = None


class GateState(Struct, frozen=True):
    """What the database contributes to the gate of a run: all revocations, oldest first, and the marks.

    `anything_stored`: there is an offer, a decision, a pin or something in quarantine. If there is nothing and the
    policy is `open`, nothing else of the gate needs to be read. `synced`: a sync of the skills has succeeded before.
    """

    revocations: tuple[Revocation, ...]
    marks: Marks
    anything_stored: bool
    synced: bool


class ServedSkill(Struct, frozen=True, gc=False):
    """A cached skill to verify; texts are the stored bytes.

    `base_text` is the marketplace's text if stored separately; the digests and `version` are the base's, and without a
    base the skill is local. `is_forged`: the signature is by our key but does not match. `is_waiting`: a newer version
    waits. `is_quarantined`: the cached text is the quarantined one.

    Without `gc`: there is one for each skill, and no value in it can be part of a cycle.
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
