"""Random histories of a marketplace, users and clocks, and the rules that hold after each step.

The oracle is separate from the gate: it knows which versions a policy or a user could have admitted so far. After any
steps, and wherever one was killed, no other version may be served, and no revoked one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from conftest import FakeClock
from msgspec.structs import replace
from test_sync_stateful import FakeMarketplace

from atom_saas_sync.core.canonical import version_from_fields, version_key
from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.gate.lock_file import lock_text
from atom_saas_sync.core.gate.types import Gate, Locked, LockFile, Policy
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import STRATEGIES, SkillVersion
from atom_saas_sync.store.sqlite.catalogue import Catalogue
from atom_saas_sync.store.sqlite.conflicts import ConflictLog
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.gate.desk import GateDatabase
from atom_saas_sync.store.sqlite.lifetime import Lifetime
from atom_saas_sync.store.sqlite.realtime import RealtimeStore
from atom_saas_sync.store.sqlite.runs import Runs
from atom_saas_sync.usecases.confirm_messages import confirm_messages
from atom_saas_sync.usecases.edit_skills import edit_skill, revert_skills
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.gate import approvals, pins_and_quarantine
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import load_gate
from atom_saas_sync.usecases.gate.reports import Target
from atom_saas_sync.usecases.gate.run import RunGate
from atom_saas_sync.usecases.pull_catalogue import CataloguePull, PullOptions
from atom_saas_sync.usecases.purge_cache import PurgeOptions, purge_cache
from atom_saas_sync.usecases.resolve_conflicts import Decision, resolve_conflicts, undo_resolution

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))
import trap

Json = dict[str, Any]

IDS = ("s0", "s1", "s2", "s3", "s4")
MIN_AGE = timedelta(hours=30)
PERSON = "eva"
_MOST_POINTS = 80
_KILLED = 0.15


class Files:
    """The gate's files: only the lock file."""

    def __init__(self, lock: LockFile) -> None:
        self.skills = lock.skills
        self._text = lock_text(lock)

    def policy(self) -> None:
        return None

    def lock(self) -> tuple[str, bytes]:
        return "skills.lock", self._text.encode()

    def revocations(self) -> None:
        return None

    def stamps(self) -> None:
        return None


class World:
    """A marketplace, a database, and the versions that could have been admitted so far."""

    def __init__(self, directory: Path, seed: int, *, admission: Any, scope: Any = "all", kills: bool = False) -> None:
        self.path = directory / "atom.db"
        self.random = random.Random(seed)
        self.kills = kills
        self.policy = Policy(admission=admission, scope=scope, min_age=MIN_AGE)
        self.clock = FakeClock()
        self.market = FakeMarketplace()
        self.history: list[str] = []
        self.numbers = iter(range(1, 10**9))
        self.past: list[Json] = []
        self.first_seen: dict[tuple[str, bytes], Any] = {}
        self.seen_as: dict[tuple[str, str], set[bytes]] = defaultdict(set)
        self.admissible: dict[str, dict[bytes, SkillVersion]] = defaultdict(dict)
        self.open()
        for skill_id in IDS[:3]:
            self.publish(skill_id)
        self.switch(admission)

    # Steps

    def step(self) -> None:
        names = list(_STEPS)
        name = self.random.choices(names, [_STEPS[each] for each in names])[0]
        self.history.append(name)
        getattr(self, name)()
        self.check()

    def publish(self, skill_id: str | None = None) -> None:
        skill_id = skill_id or self.random.choice(IDS)
        number = next(self.numbers)
        before = self.market.skills.get(skill_id, {"skill_id": skill_id, "name": skill_id, "metadata": {"author": "a"}})
        after = {**before, "version": f"{number}", "code": f"m{number}", "description": f"d{number}"}
        self.offer(after)

    def republish(self) -> None:
        if self.market.skills:
            before = self.random.choice(list(self.market.skills.values()))
            self.offer({**before, "code": f"m{next(self.numbers)}"})

    def reword(self) -> None:
        if self.market.skills:
            before = self.random.choice(list(self.market.skills.values()))
            self.offer({**before, "description": f"d{next(self.numbers)}", "rating_count": next(self.numbers)})

    def take_over(self) -> None:
        if self.market.skills:
            before = self.random.choice(list(self.market.skills.values()))
            number = next(self.numbers)
            self.offer({**before, "version": f"{number}", "code": f"m{number}", "metadata": {"author": "b"}})

    def bring_back(self) -> None:
        self.offer(dict(self.random.choice(self.past)))

    def withdraw(self) -> None:
        if self.market.skills:
            del self.market.skills[self.random.choice(list(self.market.skills))]

    def offer(self, fields: Json) -> None:
        self.market.skills[fields["skill_id"]] = fields
        self.past.append(fields)
        self.history.append(f"({fields['skill_id']} {fields['version']} {fields['code']} {fields['description']})")

    def wait(self) -> None:
        self.clock.move(hours=self.random.choice([1, 10, 20, 40]))

    def sync(self) -> None:
        self.clock.move(minutes=15)
        self.admit_by_policy()
        strategy = self.random.choice(STRATEGIES)
        self.history.append(f"({strategy})")

        def pull(database: Database) -> None:
            gate = RunGate(self.desk(database, strategy), self.clock.now())
            report = CataloguePull(
                marketplace=self.market,
                catalogue=Catalogue(database, history_versions=10),
                runs=Runs(database),
                clock=self.clock,
                options=PullOptions(
                    strategy=strategy, page_size=1000, max_delete=MaxDelete(number=99), categories=False
                ),
                check=lambda: None,
                gate=gate,
            ).run(started_by="t")
            assert report.error is None, report.error

        if self.run(pull):
            for skill_id, fields in self.market.skills.items():
                version = version_from_fields(skill_id, fields)
                self.seen_as[skill_id, version_key(fields)].add(version.exec_digest)
            self.check_that_nothing_is_lost()

    def hear(self) -> None:
        """Receive a message, true or invented, and ask the marketplace if necessary."""
        self.clock.move(minutes=5)
        self.admit_by_policy()
        skill_id = self.random.choice(IDS)
        fields, deletes = self.market.skills.get(skill_id), self.random.random() < 0.2
        if fields is None or self.random.random() < 0.5:
            number = next(self.numbers)
            news = {"version": f"{number}", "code": f"m{number}", "description": f"d{number}"}
            fields = {"skill_id": skill_id, "name": skill_id, "metadata": {"author": "a"}, **news}
            if self.policy.admission == "open":
                self.past.append(fields)
                self.admit(version_from_fields(skill_id, fields))
        kind, data = ("skill_delete", {"skill_id": skill_id}) if deletes else ("skill_update", fields)
        self.history.append(f"({kind} {skill_id} {fields['code']})")
        message = parse_frame(json.dumps({"type": kind, "data": data}))
        assert isinstance(message, Message)
        strategy, most = self.random.choice(STRATEGIES), MaxDelete(number=99)

        def follow(database: Database) -> None:
            def gate(now: datetime) -> Gate:
                return self.desk(database).load().gate

            store = RealtimeStore(database, history_versions=10)
            follower = EventFollower(store, strategy=strategy, max_delete=most, gate=gate)
            follower.apply([message], self.clock.now())
            ids = follower.take_unconfirmed(9)
            assert not (ids and self.policy.admission == "open")
            confirm_messages(
                self.market, store, gate, self.clock, ids, strategy=strategy, max_delete=most, check=lambda: None
            )

        if self.run(follow):
            version = version_from_fields(skill_id, fields)
            self.seen_as[skill_id, version_key(fields)].add(version.exec_digest)

    def approve(self) -> None:
        offers = self.offers()
        if not offers:
            return
        skill_id, digest, text = self.random.choice(offers)
        told = digest if self.random.random() < 0.8 else bytes(32)
        if told == digest:
            self.admit(version_from_fields(skill_id, json.loads(text)))
        target = Target(skill_id, told.hex())
        self.history.append(f"({skill_id} {json.loads(text)['code']}{'' if told == digest else ', another digest'})")
        self.run(lambda database: approvals.approve(self.desk(database), [target], **self.by()))

    def reject(self) -> None:
        if offers := self.offers():
            target = Target(self.random.choice(offers)[0])
            self.history.append(f"({target.skill_id})")
            self.run(lambda database: approvals.reject(self.desk(database), [target], **self.by()))

    def pin(self) -> None:
        skill_id = self.random.choice(IDS)
        former = self.random.choice([each for each in self.past if each["skill_id"] in IDS])
        text = self.random.choice([skill_id, f"{former['skill_id']}@{former['version']}"])
        self.history.append(f"({text})")
        self.run(lambda database: pins_and_quarantine.add_pin(self.desk(database), text, **self.by()))

    def unpin(self) -> None:
        by: Any = {"actor": PERSON, "now": self.clock.now()}
        skill_id = self.random.choice(IDS)
        self.history.append(f"({skill_id})")
        self.run(lambda database: pins_and_quarantine.remove_pin(self.desk(database), [skill_id], **by))

    def revoke(self) -> None:
        former = self.random.choice(self.past)
        skill_id, digest = former["skill_id"], version_from_fields(former["skill_id"], former).content_digest.hex()
        what: Any = self.random.choice(
            [
                {"skill_id": skill_id},
                {"skill_id": skill_id, "version": former["version"]},
                {"digest": digest},
                {"publisher": "B"},
            ]
        )
        self.history.append(f"({what})")
        self.run(lambda database: pins_and_quarantine.add_revocation(self.desk(database), **what, **self.by()))

    def unrevoke(self) -> None:
        by: Any = {"actor": PERSON, "now": self.clock.now()}
        numbers = [row[0] for row in self.sql("SELECT id FROM gate_revocation")]
        if numbers:
            self.run(lambda database: pins_and_quarantine.remove_revocation(self.desk(database), numbers, **by))

    def quarantine(self) -> None:
        skill_id = self.random.choice(IDS)
        self.history.append(f"({skill_id})")
        self.run(lambda database: pins_and_quarantine.quarantine(self.desk(database), [skill_id], **self.by()))

    def release(self) -> None:
        by: Any = {"actor": PERSON, "now": self.clock.now()}
        skill_ids = [row[0] for row in self.sql("SELECT skill_id FROM gate_quarantine")]
        if skill_ids:
            self.run(lambda database: pins_and_quarantine.release(self.desk(database), skill_ids, **by))

    def edit(self) -> None:
        rows = self.sql("SELECT skill_id, skill_data FROM skill_cache")
        if rows:
            skill_id, text = self.random.choice(rows)
            self.history.append(f"({skill_id})")
            after = json.dumps({**json.loads(text), "code": f"l{next(self.numbers)}"})
            self.run(
                lambda database: edit_skill(
                    Catalogue(database, history_versions=10),
                    skill_id,
                    after,
                    seen=None,
                    actor=PERSON,
                    now=self.clock.now(),
                )
            )

    def revert(self) -> None:
        skill_id = self.random.choice(IDS)
        self.history.append(f"({skill_id})")
        self.run(
            lambda database: revert_skills(
                Catalogue(database, history_versions=10), [skill_id], actor=PERSON, now=self.clock.now()
            )
        )

    def edit_by_sql(self) -> None:
        code = f"l{next(self.numbers)}"
        self.sql(
            "UPDATE skill_cache SET skill_data = json_set(skill_data, '$.code', ?) WHERE skill_id = ?",
            code,
            self.random.choice(IDS),
        )

    def delete_by_sql(self) -> None:
        self.sql("DELETE FROM skill_cache WHERE skill_id = ?", self.random.choice(IDS))

    def resolve(self) -> None:
        numbers = [row[0] for row in self.sql("SELECT id FROM conflict_log WHERE resolved = 0")]
        if numbers:
            decision = Decision(strategy=self.random.choice(["remote_wins", "local_wins", "merge"]))
            self.run(
                lambda database: resolve_conflicts(
                    ConflictLog(database, history_versions=10), numbers, decision, actor=PERSON, now=self.clock.now()
                )
            )

    def undo(self) -> None:
        numbers = [row[0] for row in self.sql("SELECT id FROM conflict_log WHERE resolved = 1")]
        if numbers:
            number = self.random.choice(numbers)
            self.history.append(f"({number})")
            self.run(
                lambda database: undo_resolution(
                    ConflictLog(database, history_versions=10), number, actor=PERSON, now=self.clock.now()
                )
            )

    def purge(self) -> None:
        options = PurgeOptions(everything=self.random.random() < 0.3)
        self.run(lambda database: purge_cache(Lifetime(database), options, actor=PERSON, now=self.clock.now()))

    def switch(self, admission: Any = None) -> None:
        admission = admission or self.random.choice(["open", "age", "review", "lock"])
        self.history.append(f"({admission})")
        self.policy = replace(self.policy, admission=admission)
        chosen = self.random.sample(self.past, 2)
        self.files = Files(LockFile("m", {each["skill_id"]: self.locked(each) for each in chosen}))

    # How steps are taken

    def run(self, operation: Callable[[Database], object]) -> bool:
        """Take the step; it may be refused. Return whether it was taken: neither killed nor refused."""
        if self.kills and self.random.random() < _KILLED:
            self.history.append("(killed)")
            self.run_and_kill(operation, self.random.randint(1, _MOST_POINTS))
            return False
        try:
            operation(self.database)
        except AtomSyncError as error:
            self.history.append(f"({type(error).__name__})")
            return False
        return True

    def run_and_kill(self, operation: Callable[[Database], object], point: int) -> None:
        """Take the step in a child that kills itself at this point of its work on disk, if it gets there."""
        self.close()  # the child must not inherit a connection
        child = os.fork()
        if child == 0:
            code = 1
            try:
                trap._set(trap._Trap(os.devnull, point))  # noqa: SLF001 - a part of the tests
                self.open()
                operation(self.database)
                code = 0
            except AtomSyncError:
                code = 0
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in {0, -signal.SIGKILL}, self.history[-30:]
        self.open()

    def open(self) -> None:
        self.database = Database.open(self.path)
        self.foreign = sqlite3.connect(self.path, timeout=60, isolation_level=None)

    def close(self) -> None:
        self.foreign.close()
        self.database.close()

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Execute SQL as another program."""
        return self.foreign.execute(statement, values).fetchall()

    def desk(self, database: Database, strategy: Any = "remote_wins") -> GateDesk:
        store = GateDatabase(database, history_versions=10)
        return GateDesk(store, lambda: load_gate(self.policy, self.files, store), strategy)

    def by(self) -> dict[str, Any]:
        return {"note": None, "actor": PERSON, "now": self.clock.now()}

    def offers(self) -> list[tuple[str, bytes, str]]:
        """Return id, digest and text of waiting versions."""
        with GateDatabase(self.database, history_versions=10).deciding(write=False) as batch:
            return [(each.skill_id, each.content_digest, each.text) for each in batch.gate.offers(IDS).values()]

    @staticmethod
    def locked(fields: Json) -> Locked:
        version = version_from_fields(fields["skill_id"], fields)
        return Locked(fields["version"], version.content_digest, version.exec_digest)

    # What may have been admitted

    def admit(self, version: SkillVersion) -> None:
        self.admissible[version.skill_id][version.content_digest] = version

    def admit_by_policy(self) -> None:
        """Record as admissible what the policy may admit of the marketplace's current versions."""
        has_base = {row[0] for row in self.sql("SELECT skill_id FROM skill_base")}
        has_base -= {row[0] for row in self.sql("SELECT skill_id FROM gate_quarantine WHERE reason != 'quarantined'")}
        for skill_id, fields in self.market.skills.items():
            version = version_from_fields(skill_id, fields)
            first = self.first_seen.setdefault((skill_id, version.content_digest), self.clock.now())
            seen = self.seen_as[skill_id, version_key(fields)] - {version.exec_digest}
            known = self.admissible[skill_id]
            out_of_scope = self.policy.scope == "executable" and version.exec_digest in {
                each.exec_digest for each in known.values()
            }
            authors = {each.fields["metadata"]["author"] for each in known.values()}
            trips = seen or (skill_id in has_base and authors and fields["metadata"]["author"] not in authors)
            if (
                out_of_scope
                or self.policy.admission == "open"
                or (self.policy.admission == "age" and not trips and self.clock.now() - first >= MIN_AGE)
                or (self.policy.admission == "lock" and self.files.skills.get(skill_id) == self.locked(fields))
            ):
                self.admit(version)

    # Rules

    def check(self) -> None:
        told = f"after {' '.join(self.history[-80:])}"
        bases = {row[0]: row[1:] for row in self.sql("SELECT skill_id, content_digest, data FROM skill_base")}
        revocations = self.sql("SELECT skill_id, version, digest, publisher FROM gate_revocation")
        put_away = {row[0] for row in self.sql("SELECT skill_id FROM gate_quarantine WHERE reason = 'quarantined'")}
        for skill_id, text in self.sql("SELECT skill_id, skill_data FROM skill_cache"):
            fields, known = json.loads(text), self.admissible[skill_id].values()
            for name in ("code", "description"):
                value = fields.get(name)
                written_here = name == "code" and str(value).startswith("l")
                assert written_here or value in {each.fields.get(name) for each in known}, (
                    f"{skill_id} is served with {value}, which nobody admitted, {told}"
                )
            digest, data = bases.get(skill_id, (None, None))
            assert digest is None or digest in self.admissible[skill_id], f"the base of {skill_id}, {told}"
            sides = [fields] if data is None else [fields, json.loads(data)]
            for side in sides:
                hit = [row for row in revocations if _hits(row, skill_id, side)]
                assert not hit, f"{skill_id} is served and revoked by {hit}, {told}"
            assert skill_id not in put_away, f"{skill_id} is served from quarantine, {told}"

    def check_that_nothing_is_lost(self) -> None:
        """Each version of the marketplace is the base, waits, or is the remote side of an open conflict."""
        bases = dict(self.sql("SELECT skill_id, content_digest FROM skill_base"))
        offers = {skill_id: digest for skill_id, digest, _ in self.offers()}
        conflicts = dict(self.sql("SELECT skill_id, remote_data FROM conflict_log WHERE resolved = 0"))
        for skill_id, fields in self.market.skills.items():
            digest = version_from_fields(skill_id, fields).content_digest
            remote = conflicts.get(skill_id)
            waits = remote and version_from_fields(skill_id, json.loads(remote)).content_digest
            assert digest in {bases.get(skill_id), offers.get(skill_id), waits}, (skill_id, self.history[-40:])


def _hits(revocation: Any, skill_id: str, fields: Json) -> bool:
    of_id, version, digest, publisher = revocation
    if of_id is not None:
        return bool(of_id == skill_id and version in {None, fields.get("version")})
    if digest is not None:
        return bool(digest == version_from_fields(skill_id, fields).content_digest)
    return bool(publisher.casefold() == fields.get("metadata", {}).get("author", "").casefold())


_STEPS = {
    "publish": 12,
    "republish": 3,
    "reword": 4,
    "take_over": 2,
    "bring_back": 5,
    "withdraw": 3,
    "wait": 6,
    "sync": 22,
    "hear": 12,
    "approve": 14,
    "reject": 3,
    "pin": 4,
    "unpin": 3,
    "revoke": 3,
    "unrevoke": 3,
    "quarantine": 2,
    "release": 3,
    "edit": 4,
    "revert": 2,
    "edit_by_sql": 3,
    "delete_by_sql": 2,
    "resolve": 3,
    "undo": 2,
    "purge": 2,
    "switch": 1,
}
