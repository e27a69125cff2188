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
