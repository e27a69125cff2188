"""Load the gate of a run: settings, policy file, lock file and revocations as one value.

An unreadable policy is a configuration error: the run writes nothing, and what is served stays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from atom_saas_sync.core.gate.stored import Marks
from atom_saas_sync.core.gate.types import Gate, Policy, Revocation, Revocations
from atom_saas_sync.errors import ConfigError, UsageError
from atom_saas_sync.times import CLOCK_TOLERANCE

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import GateBatch
    from atom_saas_sync.usecases.ports.gate_desk import GateStore
    from atom_saas_sync.usecases.ports.gate_edges import GateFiles


OPEN = "open"

log = logging.getLogger(__name__)


class LoadedGate(Struct, frozen=True):
    """The gate, and what its run has to store.

    `marks` are those of the last run; `synced` tells whether a sync has ever succeeded. `file_entries` is the list of
    the revocations file; None if the file is invalid: then `problem` says why, and the last valid list stays in force.
    """

    gate: Gate
    marks: Marks
    synced: bool
    stored: tuple[Revocation, ...]
    file_entries: tuple[Revocation, ...] | None
    problem: ConfigError | None = None


def load_policy(settings: Policy, files: GateFiles) -> Policy:
    """Return the policy with the rules of the policy file, and the lock file if anything needs it.

    Raises ConfigError.
    """
    file = files.policy()
    policy = settings
    if file is not None:
        from atom_saas_sync.core.gate.policy_file import parse_rules

        policy = replace(settings, rules=parse_rules(file[1], file[0]))
    if not policy.needs_lock:
        return policy
    from atom_saas_sync.core.gate.lock_file import parse_lock

    lock = files.lock()
    if lock is None:
        raise ConfigError(
            "ATOM_SYNC_LOCK_FILE: is not set, but a rule of the policy file needs it",
            hint="set it to a file written by `atom-sync lock write`",
        )
    return replace(policy, lock=parse_lock(lock[1], lock[0]))


def load_gate(settings: Policy, files: GateFiles, store: GateStore, *, for_user: bool = False) -> LoadedGate:
    """Return the gate from the current files and database.

    `for_user`: a user's shell may lack the service's settings, so the last list of a file that is not configured stays
    in force. Raises ConfigError for the policy; the caller decides whether an invalid revocations file is an error.
    """
    policy = load_policy(settings, files)
    state = store.state()
    stored = state.revocations
    problem: ConfigError | None = None
    entries: tuple[Revocation, ...] | None = None
    last = tuple(each for each in stored if each.source == "file")
    try:
        file = files.revocations()
        if file is None:
            entries = last if for_user else ()
        else:
            from atom_saas_sync.core.gate.revocations import parse_revocations

            entries = parse_revocations(file[1], file[0])
    except ConfigError as error:
        problem = error
    in_force = (*(each for each in stored if each.source == "command"), *(last if entries is None else entries))
    gate = Gate(
        policy=policy,
        revocations=Revocations(in_force),
        revocations_broken=problem is not None,
        anything_stored=state.anything_stored,
    )
    return LoadedGate(gate, state.marks, state.synced, stored, entries, problem)


def begin_run(store: GateStore, loaded: LoadedGate, now: datetime, *, note_clock: bool = True) -> bool:
    """Store what a run has loaded: the list of the revocations file, the policy, and the time.

    If the policy is no longer `open`, what is served is adopted. Writes only what has changed, and the time only if
    something is admitted by age. Returns whether anything was written.
    """
    policy, marks = loaded.gate.policy.admission, loaded.marks
    before, broken = marks.policy or OPEN, loaded.problem is not None
    timed = note_clock and needs_clock(loaded.gate)
    news = loaded.file_entries is not None and _lists_something_else(loaded.stored, loaded.file_entries)
    if not (news or timed or policy != before or broken != bool(marks.revocations_broken)):
        return False
    with store.deciding() as batch:
        if news and loaded.file_entries is not None:
            batch.gate.replace_file_revocations(loaded.file_entries, now)
        if policy != before == OPEN:
            log.info("the policy is %s: adopted %d skills that were served before", policy, batch.gate.adopt(now))
        batch.gate.write_marks(Marks(policy=policy, clock=now if timed else None, revocations_broken=broken), now)
    return True


def note_broken(store: GateStore, loaded: LoadedGate, now: datetime) -> None:
    """Store that the revocations file is invalid, for the status and the metrics."""
    if not loaded.marks.revocations_broken:
        with store.deciding() as batch:
            batch.gate.write_marks(Marks(revocations_broken=True), now)


def with_clock(gate: Gate, marks: Marks, now: datetime, skew_seconds: float | None) -> Gate:
    """Return the gate with the clock for admission by age; the marketplace's is `skew_seconds` ahead of ours."""
    went_back = marks.clock is not None and now < marks.clock
    is_off = skew_seconds is not None and abs(skew_seconds) > CLOCK_TOLERANCE.total_seconds()
    return replace(gate, clock_trusted=not (went_back or is_off))


def renewed(gate: Gate, stored: GateBatch) -> Gate:
    """Return the gate with the revocations that were added since it was loaded; call it in the transaction."""
    known = {_key(each) for each in gate.revocations.entries}
    added = tuple(each for each in stored.revocations().entries if _key(each) not in known)
    return replace(gate, revocations=Revocations((*gate.revocations.entries, *added))) if added else gate


def _key(entry: Revocation) -> tuple[object, ...]:
    return entry.skill_id, entry.version, entry.digest, entry.publisher


def adopting(loaded: LoadedGate, person: str) -> Gate:
    """Return a gate that admits everything in the first sync. Raises UsageError in any later sync."""
    if loaded.synced:
        raise UsageError(
            "--adopt is only for the first sync of a database, and this one has been synced before",
            hint="`atom-sync updates approve --all` admits what waits",
        )
    return replace(loaded.gate, adopting=person)


def needs_clock(gate: Gate) -> bool:
    """Tell whether anything is admitted by age."""
    policy = gate.policy
    return policy.admission == "age" or any(rule.admission == "age" for rule in policy.rules)


def _lists_something_else(stored: Sequence[Revocation], entries: Sequence[Revocation]) -> bool:
    return _plain([each for each in stored if each.source == "file"]) != _plain(entries)


def _plain(entries: Sequence[Revocation]) -> list[tuple[object, ...]]:
    return [(each.skill_id, each.version, each.digest, each.publisher, each.note) for each in entries]
