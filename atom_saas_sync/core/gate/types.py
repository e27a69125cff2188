"""Frozen values of the gate. Times are aware; digests are 32 bytes; a version is what `version_key` returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal, get_args

from msgspec import Struct, field

from atom_saas_sync.model import TRIPPING_REASONS

Admission = Literal["open", "age", "review", "lock", "deny"]
"""A policy, from loose to strict. Only a rule can have `deny`."""

ADMISSIONS: tuple[Admission, ...] = get_args(Admission)

Scope = Literal["all", "executable"]

Reason = Literal[
    "revoked",
    "denied",
    "rejected",
    "quarantined",
    "not_locked",
    "pinned",
    "downgrade",
    "lookalike",
    "publisher",
    "republished",
    "abnormal",
    "scan",
    "revocations",
    "age",
    "clock",
    "review",
]
"""Why a version is not served, in the order of the verdict's table."""

REASONS: tuple[Reason, ...] = get_args(Reason)

NEEDS_PERSON: frozenset[str] = TRIPPING_REASONS
"""An update that waits for one of these reasons trips `updates_tripped` until somebody decides."""

REFUSALS: frozenset[Reason] = frozenset({"revoked", "denied", "rejected"})
"""Versions with one of these reasons are refused, not held."""

ADOPTED = "adopted"
BY_POLICY = "policy"
"""Values of `admitted_by` that are not a user."""

SHORTEST_DIGEST = 12
"""The minimum number of hexadecimal digits in a typed digest."""


class Verdict(Struct, frozen=True):
    """The gate's verdict on one version.

    `line` is the deciding line of the table, 0 for a version admitted by `--adopt`. `by` is who admits it.
    `note` explains the verdict to people.
    """

    kind: Literal["admit", "hold", "refuse"]
    line: int
    reason: Reason | None = None
    due_at: datetime | None = None
    note: str | None = None
    by: str = BY_POLICY


class Offer(Struct, frozen=True):
    """A version of the marketplace that is not served: held, or refused.

    `abnormal`: it was held by an abnormal run.
    """

    skill_id: str
    text: str
    wire_digest: bytes
    content_digest: bytes
    exec_digest: bytes
    version: str
    page: int | None
    kind: Literal["hold", "refuse"]
    reason: Reason
    due_at: datetime | None
    first_seen_at: datetime
    offered_at: datetime
    abnormal: bool = False
    note: str | None = None


class Decision(Struct, frozen=True):
    """A user's decision about one content digest of one skill."""

    skill_id: str
    content_digest: bytes
    kind: Literal["approve", "reject"]
    at: datetime
    by: str
    note: str | None = None


class Pin(Struct, frozen=True):
    """The one version of a skill that may be served."""

    skill_id: str
    content_digest: bytes
    version: str
    at: datetime
    by: str
    note: str | None = None


class Revocation(Struct, frozen=True):
    """A ban on a skill, one of its versions, a content digest or a publisher.

    `id` is the row's number, None for an entry of the file. `version` is only used with `skill_id`.
    """

    skill_id: str | None = None
    version: str | None = None
    digest: bytes | None = None
    publisher: str | None = None
    note: str | None = None
    source: Literal["command", "file"] = "command"
    added_at: datetime | None = None
    added_by: str | None = None
    id: int | None = None


class Revocations(Struct, frozen=True, dict=True):
    """All revocations in force, from commands and from the file."""

    entries: tuple[Revocation, ...] = ()

    @cached_property
    def by_skill(self) -> Mapping[str, tuple[Revocation, ...]]:
        """The entries that name a skill, by its id."""
        found: dict[str, tuple[Revocation, ...]] = {}
        for each in self.entries:
            if each.skill_id is not None:
                found[each.skill_id] = (*found.get(each.skill_id, ()), each)
        return found

    @cached_property
    def by_digest(self) -> Mapping[bytes, Revocation]:
        """The entries that name a digest."""
        return {each.digest: each for each in reversed(self.entries) if each.digest is not None}

    @cached_property
    def by_publisher(self) -> Mapping[str, Revocation]:
        """The entries that name a publisher, by normalized name."""
        from atom_saas_sync.core.gate.names import folded

        return {folded(each.publisher): each for each in reversed(self.entries) if each.publisher is not None}


class Quarantined(Struct, frozen=True):
    """A skill in quarantine, whole.

    `text` is what was served; `base_text` the marketplace's version, if that is a different text.
    """

    skill_id: str
    text: str
    base_text: str | None
    content_digest: bytes
    reason: Literal["quarantined", "revoked", "denied"]
    at: datetime
    by: str
    note: str | None
    served_source: Literal["marketplace", "edited", "local"]


class ScanResult(Struct, frozen=True):
    """The scan result of a content digest; `note` is the first line of the command's output."""

    content_digest: bytes
    passed: bool
    note: str | None
    at: datetime


class Served(Struct, frozen=True):
    """The base of a skill: the marketplace's last admitted version, even if it is no longer cached.

    `fields` are its decoded fields; None if its text was deleted.
    """

    content_digest: bytes
    exec_digest: bytes
    version: str
    fields: Mapping[str, Any] | None = None


class Evidence(Struct, frozen=True):
    """The stored facts that the verdict on one version of a skill depends on.

    About that version: `decision` is the newest one on its content digest, `admitted_since` tells whether another
    version was admitted after it, `first_seen_at` is when this machine first saw the digest (None: now), `scan` is the
    scan result. `seen_otherwise`: its version number was seen with another exec digest. `lookalike_of` is another id,
    known before this one, that looks the same. The text of `offer` may be empty: no verdict depends on it.
    """

    skill_id: str
    offer: Offer | None = None
    decision: Decision | None = None
    admitted_since: bool = False
    pin: Pin | None = None
    quarantined: Quarantined | None = None
    lookalike_of: str | None = None
    seen_otherwise: bool = False
    first_seen_at: datetime | None = None
    scan: ScanResult | None = None


class Rule(Struct, frozen=True):
    """One rule of the policy file.

    All non-empty conditions must match, each with one of its patterns. `number` is the rule's position in the file,
    from 1. `new`: the rule applies to new skills even if it is looser than the policy.
    """

    number: int
    admission: Admission
    conditions: Mapping[str, tuple[str, ...]]
    min_age: timedelta | None = None
    new: bool = False


class MaxChanged(Struct, frozen=True):
    """The limit on changed skills in a run: a number, or a share of the served marketplace skills."""

    number: int | None = None
    share: float | None = None

    def limit(self, served: int) -> int:
        """Return the largest normal number of changed skills."""
        return self.number if self.number is not None else math.floor(served * (self.share or 0))


class Locked(Struct, frozen=True):
    """A skill's entry in the lock file; `source` is set unless it is the marketplace's unchanged version."""

    version: str | None
    content: bytes
    exec: bytes
    source: Literal["edited", "local"] | None = None


class LockFile(Struct, frozen=True):
    """A lock file: which version of each skill is served."""

    marketplace: str
    skills: Mapping[str, Locked]


class Policy(Struct, frozen=True):
    """The policy in force: the settings, the rules of the policy file, and the lock file if needed.

    Without arguments it admits everything at once. The defaults of the settings are in config/variables.py.
    """

    admission: Admission = "open"
    scope: Scope = "all"
    min_age: timedelta = timedelta(0)
    max_changed: MaxChanged | None = None
    rules: tuple[Rule, ...] = ()
    lock: LockFile | None = None
    scan_command: tuple[str, ...] = ()

    @property
    def needs_lock(self) -> bool:
        """Whether the settings or a rule use the lock file."""
        return self.admission == "lock" or any(rule.admission == "lock" for rule in self.rules)


class Gate(Struct, frozen=True, dict=True):
    """The gate of a whole run.

    `anything_stored`: the database has a decision, pin, quarantine entry or offer. `abnormal`: the run changes more
    skills than `max_changed` allows; digests first seen after `since` belong to it. `parking`: this is not known yet;
    what is held as abnormal is judged again at the end of the walk. `adopting` is the user who admits everything in the
    first sync (`--adopt`).
    """

    policy: Policy = field(default_factory=Policy)
    revocations: Revocations = field(default_factory=Revocations)
    revocations_broken: bool = False
    anything_stored: bool = True
    abnormal: bool = False
    parking: bool = False
    since: datetime | None = None
    clock_trusted: bool = True
    adopting: str | None = None

    @cached_property
    def idle(self) -> bool:
        """Whether the gate admits everything anyway, so that nothing needs to be loaded, compared or stored for it."""
        policy = self.policy
        return (
            policy.admission == "open"
            and not (policy.rules or policy.scan_command or policy.max_changed)
            and not (self.revocations.entries or self.revocations_broken or self.anything_stored)
        )

    @cached_property
    def fingerprint(self) -> bytes:
        """A digest of policy, rules, lock file, revocations and scan command: if it changes, all offers are judged."""
        from hashlib import sha256

        from msgspec.msgpack import Encoder

        parts = (self.policy, self.revocations, self.revocations_broken)
        return sha256(Encoder(order="deterministic").encode(parts)).digest()
