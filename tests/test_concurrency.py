"""Everything at once: timers, ratings, the real-time service in a flood, users, and writes of another program.

No command fails because of a lock, nothing is lost, nothing waits forever. Five seconds in `make test`, a minute in
`make soak` (`ATOM_SOAK_SECONDS` makes it another time).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine
from database_rules import check_ratings, check_rules, counters
from watch_support import stop, watching

from atom_saas_sync.sandbox import Sandbox

LIMITS = {"ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000", "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000"}
SETTINGS = {**LIMITS, "ENABLE_SCHEDULER": "true", "ATOM_SAAS_SYNC_BATCH_SIZE": "150"}
ALLOWED = {0, 4, 75}
COMMANDS = {
    "timer": ("sync", "skills", "--max-delete", "100%"),
    "another timer": ("sync", "skills", "--max-delete", "100%", "--strategy", "manual"),
    "ratings": ("sync", "ratings"),
    "purge": ("cache", "purge"),
    "resolve": ("conflicts", "resolve", "--all", "--strategy", "merge"),
    "status": ("status", "--json"),
}
RATED = 3  # skills; they are never deleted
PAUSES = {"status": 0.1, "purge": 0.2, "resolve": 0.2}


_PATIENCE = 120.0


class Crowd:
    """All programs that use one database at once."""

    def __init__(self, machine: Machine, seconds: float, seed: int) -> None:
        self.machine = machine
        self._end = time.monotonic() + seconds
        self._latest_end = self._end + _PATIENCE
        self._seed = seed
        self.exit_codes: dict[str, Counter[int]] = {name: Counter() for name in COMMANDS}
        self.longest: dict[str, float] = dict.fromkeys(COMMANDS, 0.0)
        self.output: list[str] = []
        self.edits: dict[str, int] = {}
        self.ratings: dict[tuple[str, str], int] = {}
        self.foreign_writes = 0
        self.longest_wait = 0.0
        self.messages = 0
        self.broken_rules: list[str] = []
        self.looks = 0
        self._failures: list[BaseException] = []

    def work(self) -> None:
        """Run all of them until the time is over. Raises the first error of any of them."""
        work: list[Callable[[], None]] = [self._flood, self._change, self._write, self._look]
        work += [lambda name=name: self._repeat(name) for name in COMMANDS]  # type: ignore[misc]
        threads = [threading.Thread(target=self._caught, args=(each,)) for each in work]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if self._failures:
            raise ExceptionGroup("of those who work at once", [e for e in self._failures if isinstance(e, Exception)])

    def _caught(self, work: Callable[[], None]) -> None:
        try:
            while not self._over():
                work()
        except Exception as error:  # noqa: BLE001 - raised again by `work`
            self._failures.append(error)

    def _over(self) -> bool:
        """Tell whether the time is over and, on a slow machine, everyone has started."""
        now = time.monotonic()
        return now >= self._latest_end or bool(now >= self._end and self.all_have_worked())

    def all_have_worked(self) -> bool:
        worked = {name for name, codes in self.exit_codes.items() if codes[0]}
        timers = {"timer", "another timer"}
        return (
            self.foreign_writes > 5
            and self.messages > 500
            and worked >= COMMANDS.keys() - timers
            and worked & timers != set()
        )

    def _repeat(self, name: str) -> None:
        began = time.monotonic()
        ended = self.machine.command(*COMMANDS[name], **SETTINGS)
        self.longest[name] = max(self.longest[name], time.monotonic() - began)
        self.exit_codes[name][ended.returncode] += 1
        self.output.append(ended.stderr)
        time.sleep(PAUSES.get(name, 0.0))  # a person's or a monitor's pause

    def _flood(self) -> None:
        self.messages += self.machine.sandbox.flood(200, text=False)["messages"]
        time.sleep(0.05)  # a flood has a rate

    def _change(self) -> None:
        """Change the marketplace without messages, for polls to find."""
        sandbox, chance = self.machine.sandbox, random.Random(self._seed + self.messages)
        ids = sandbox.skill_ids()
        for _ in range(15):
            sandbox.patch_skill(chance.choice(ids), {"description": f"theirs {self.messages}"}, push=False)
            time.sleep(0.1)  # the rate of the load, not a wait for something
        # Seldom: a list that never holds still can't be walked (exit code 69).
        sandbox.put_skill({"skill_id": f"new-{self.messages}", "name": "New"}, push=chance.random() < 0.5)
        sandbox.delete_skill(chance.choice(ids[RATED:]), push=chance.random() < 0.5)

    def _write(self) -> None:
        """Write as another program does: read and then write."""
        number = self.foreign_writes
        chance = random.Random(self._seed + number)
        began = time.monotonic()
        with self.machine.database.transaction() as execute:
            execute("UPDATE of_another_program SET count = count + 1")
            self.longest_wait = max(self.longest_wait, time.monotonic() - began)
            skills = execute("SELECT skill_id, skill_data FROM skill_cache ORDER BY skill_id")
            edited = None
            if skills and number % 5 == 0:
                edited, text = chance.choice(skills)
                data = json.loads(text) | {"description": f"ours {number}", "edit_of_ours": number}
                execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?", json.dumps(data), edited)
            who, stars = f"user {number % 40}", 1 + number % 5
            skill_id = self.machine.sandbox.skill_ids()[number % RATED]
            execute(
                "INSERT INTO skill_ratings (skill_id, user_id, rating) VALUES (?, ?, ?) "
                "ON CONFLICT (skill_id, user_id) DO UPDATE SET rating = excluded.rating",
                skill_id,
                who,
                stars,
            )
        if edited is not None:
            self.edits[edited] = number
        self.ratings[skill_id, who] = stars
        self.foreign_writes += 1
        time.sleep(0.01)  # likewise

    def _look(self) -> None:
        """The rules hold at all times, not only at the end; and counters only grow."""
        before = counters(self.machine.database)
        self.broken_rules += check_rules(self.machine.database, before=before, idle=False)
        self.looks += 1
        time.sleep(0.5)  # the rate of the checks: each reads the whole database


def everything_at_once(machine: Machine, seconds: float, seed: int) -> Crowd:
    assert machine.command("sync", "skills", **SETTINGS).returncode == 0
    machine.sql("CREATE TABLE of_another_program (count INTEGER NOT NULL)")
    machine.sql("INSERT INTO of_another_program VALUES (0)")
    crowd = Crowd(machine, seconds, seed)
    with watching(machine, **SETTINGS) as service:
        crowd.work()
        assert service.poll() is None
        crowd.output.append(stop(service))
    return crowd


def assert_nothing_went_wrong(crowd: Crowd) -> None:
    machine = crowd.machine
    assert crowd.broken_rules == []
    codes = {name: set(found) - ALLOWED for name, found in crowd.exit_codes.items() if set(found) - ALLOWED}
    told = [line for text in crowd.output for line in text.splitlines()]
    assert codes == {}, told[-20:]
    assert [line for line in told if "database is locked" in line or "was locked" in line or "Traceback" in line] == []
    assert max(crowd.longest.values()) < _PATIENCE, crowd.longest
    assert machine.sql("SELECT count FROM of_another_program") == [(crowd.foreign_writes,)], "an update was lost"
    assert_edits_are_kept(crowd)
    settle(machine)
    assert check_rules(machine.database) + check_ratings(machine.sandbox) == []
    assert_ratings_are_there(crowd)
    assert_unedited_equals_the_marketplace(machine)


def assert_edits_are_kept(crowd: Crowd) -> None:
    """The last edit of each skill is in the cache, or in the log of conflicts."""
    kept: set[tuple[str, int]] = set()
    for query in (
        "SELECT skill_id, skill_data FROM skill_cache",
        "SELECT skill_id, local_data FROM conflict_log WHERE local_data IS NOT NULL",
    ):
        for skill_id, text in crowd.machine.sql(query):
            data: dict[str, Any] = json.loads(text)
            if "edit_of_ours" in data:
                kept.add((skill_id, data["edit_of_ours"]))
    assert set(crowd.edits.items()) - kept == set()


def settle(machine: Machine) -> None:
    for arguments in (
        ("sync", "skills", "--max-delete", "100%"),
        ("conflicts", "resolve", "--all", "--strategy", "remote_wins"),
        ("sync", "ratings", "--retry-failed"),
        ("sync", "skills", "--max-delete", "100%"),
    ):
        ended = machine.command(*arguments, **SETTINGS)
        assert ended.returncode == 0, ended.stderr


def assert_ratings_are_there(crowd: Crowd) -> None:
    there = {(each["skill_id"], each["user_id"]): each["rating"] for each in crowd.machine.sandbox.ratings()}
    assert {who: there.get(who) for who in crowd.ratings} == crowd.ratings


def assert_unedited_equals_the_marketplace(machine: Machine) -> None:
    sources = dict(machine.sql("SELECT skill_id, source FROM usable_skill"))
    cached, listed = machine.cached(), machine.listed()
    ours = {name for name, source in sources.items() if source != "marketplace"}
    assert {name: data for name, data in cached.items() if name not in ours} == {
        name: data for name, data in listed.items() if name not in ours
    }


def summary(crowd: Crowd, seconds: float) -> str:
    commands = {name: dict(codes) for name, codes in crowd.exit_codes.items()}
    longest = max(crowd.longest, key=lambda name: crowd.longest[name])
    return (
        f"{seconds:.0f} s: {commands}; {crowd.messages} messages, {crowd.foreign_writes} foreign writes, "
        f"which waited {crowd.longest_wait:.1f} s at most, "
        f"{crowd.looks} looks at the rules; the longest command: {longest}, {crowd.longest[longest]:.1f} s"
    )


def test_everything_at_once_for_five_seconds(tmp_path: Path) -> None:
    with Sandbox(skills=200, seed=3) as sandbox:
        crowd = everything_at_once(Machine(sandbox, tmp_path), 5, seed=1)
        assert_nothing_went_wrong(crowd)
        assert crowd.all_have_worked(), summary(crowd, 5)


@pytest.mark.soak
def test_everything_at_once_for_a_minute(tmp_path: Path) -> None:
    seconds = min(60.0, float(os.environ.get("ATOM_SOAK_SECONDS", "60")))
    with Sandbox(skills=2000, seed=3) as sandbox:
        crowd = everything_at_once(Machine(sandbox, tmp_path), seconds, seed=random.SystemRandom().randrange(10**6))
        print(summary(crowd, seconds))  # noqa: T201
        assert_nothing_went_wrong(crowd)
        assert crowd.longest_wait < 5, "sqlite3 waits five seconds unless told otherwise"
