"""The request budget: what a marketplace declares lowers it, for its window, and never below ten a minute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import NO_LIMITS, FakeClock, Machine
from scripted_market import PAGE, ScriptedMarket, answer, scripted_market

from atom_saas_sync.usecases.ports import StoredBudget

HERE, ELSEWHERE = "https://here.example", "https://elsewhere.example"


@pytest.fixture
def market() -> Iterator[ScriptedMarket]:
    with scripted_market() as market:
        yield market


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def budget(machine: Machine) -> Iterator[StoredBudget]:
    budget = machine.budget(per_minute=100, per_hour=1000, marketplace=HERE)
    yield budget
    budget.close()


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "free"),
    [
        (50, 40, 30, 50),
        (1, 1, 30, 10),
        (1, 0, 3600, 10),
        (20, 0, 90, 10),
        (900, 899, 3000, 100),
        (5, 4, 3000, 100),
        (100_000, 99_999, 30, 100),
        (50, 0, 30, 0),
        (50, None, None, 50),
    ],
)
def test_a_declared_limit_applies(
    budget: StoredBudget, clock: FakeClock, limit: int, remaining: int | None, reset: int | None, free: int
) -> None:
    budget.learn(clock.now(), limit=limit, remaining=remaining, reset_seconds=reset)
    assert budget.free(clock.now()) == free


@pytest.mark.parametrize(("reset", "hold"), [(30, 60), (None, 60), (3000, 3600), (7200, 3600)])
@pytest.mark.parametrize("remaining", [0, 1])
def test_it_is_forgotten_after_its_window(
    budget: StoredBudget, clock: FakeClock, reset: int | None, hold: int, remaining: int
) -> None:
    budget.learn(clock.now(), limit=1, remaining=remaining, reset_seconds=reset)
    assert budget.free(clock.now()) <= 100
    clock.move(seconds=hold + 1)
    assert budget.free(clock.now()) == 100


def test_a_declared_limit_applies_while_it_is_repeated(budget: StoredBudget, clock: FakeClock) -> None:
    for _ in range(10):
        budget.learn(clock.now(), limit=20, remaining=9, reset_seconds=30)
        clock.move(seconds=20)
        assert budget.free(clock.now()) == 20


def test_a_declared_limit_applies_only_to_its_marketplace(
    machine: Machine, budget: StoredBudget, clock: FakeClock
) -> None:
    budget.learn(clock.now(), limit=1, remaining=0, reset_seconds=30)
    assert budget.take(clock.now()) == pytest.approx(30)
    other = machine.budget(per_minute=100, per_hour=1000, marketplace=ELSEWHERE)
    try:
        assert other.take(clock.now()) == 0.0
    finally:
        other.close()


def declaring(body: object, limit: str = "1", reset: str = "3600") -> bytes:
    return answer(body, X_RateLimit_Limit=limit, X_RateLimit_Remaining="0", X_RateLimit_Reset=reset)


def test_an_answer_gone_wrong_stops_no_sync(machine: Machine, market: ScriptedMarket) -> None:
    for beginning in ("/api/v1/skills", "/api/v1/categories"):
        market.on(beginning, declaring(PAGE if "skills" in beginning else {"categories": []}))
    for _ in range(2):
        ended = machine.command("sync", "skills", "--json", "--deadline", "30", **market.variables)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("unit", [1, 1000], ids=["seconds", "milliseconds"])
def test_a_reset_is_a_moment_in_seconds_or_milliseconds(machine: Machine, market: ScriptedMarket, unit: int) -> None:
    moment = int((machine.clock.now() + timedelta(seconds=30)).timestamp() * unit)
    market.on("/api/v1/skills", declaring(PAGE, reset=str(moment)))
    with machine.client(url=market.url) as (client, budget):
        client.list_skills(1, 10)
        assert budget.take(machine.clock.now()) == pytest.approx(30)


def test_show_and_reset(machine: Machine, market: ScriptedMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("MINUTE", "100"), ("HOUR", "1000")):
        monkeypatch.setitem(NO_LIMITS, f"ATOM_SAAS_RATE_LIMIT_PER_{name}", limit)
    market.on("/api/v1/skills", declaring(PAGE, limit="20", reset="45"))
    assert machine.command("sync", "skills", "--no-categories", **market.variables).returncode == 0

    def shown(**variables: str) -> dict[str, object]:
        result = machine.command("budget", "show", "--json", **variables)
        assert result.returncode == 0, result.stderr
        document = json.loads(result.stdout)
        assert document["success"] is True
        return dict(document["budget"])

    declared = shown(**market.variables)
    assert declared["free"] == 0 and declared["paused_until"] is not None
    limits = declared["limits"]
    assert isinstance(limits, list)
    assert [(each["requests"], each["window_seconds"], each["used"], each["set_by"]) for each in limits] == [
        (100, 60, 1, "ATOM_SAAS_RATE_LIMIT_PER_MINUTE"),
        (1000, 3600, 1, "ATOM_SAAS_RATE_LIMIT_PER_HOUR"),
        (20, 60, 1, market.url),
    ]
    assert shown()["free"] == 99, "another marketplace is not limited"
    text = machine.command("budget", "show", **market.variables).stdout
    assert text.startswith("0 requests free; the next in ") and f"20 a minute: 1 used, 19 free ({market.url})" in text

    assert json.loads(machine.command("budget", "reset", "--json").stdout) == {"success": True, "reset": True}
    assert json.loads(machine.command("budget", "reset", "--json").stdout) == {"success": True, "reset": False}
    assert shown(**market.variables)["free"] == 99


@pytest.mark.parametrize("command", ["show", "reset"])
def test_without_a_database_there_is_no_budget(machine: Machine, command: str) -> None:
    ended = machine.command("budget", command, "--json")
    assert ended.returncode == 74
    assert json.loads(ended.stdout)["error"]["type"] == "database"
    assert not machine.database.exists()


def test_a_limit_stored_by_an_older_version_is_ignored(machine: Machine) -> None:
    machine.pull()
    machine.sql(
        "INSERT INTO fact VALUES ('rate_limit', ?, '2026-01-01T00:00:00Z') "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        json.dumps({"limit": 1, "window": 3600, "remaining": 0, "pause_until": datetime.now(UTC).timestamp() + 3600}),
    )
    assert machine.command("sync", "skills").returncode == 0


def _fact(now: float, **fields: object) -> str:
    return json.dumps(
        {"marketplace": HERE, "limit": 50, "window": 60, "until": now + 30, "pause_until": 0, **fields}, allow_nan=True
    )


FOREIGN_FIELDS: dict[str, list[Any]] = {
    "limit": ["many", None, [], -1, 0, 9, 0.5, True],
    "window": ["long", None, 0, 1, 60.0, 10**30],
    "until": ["late", None, float("nan"), float("inf"), 10**400],
    "pause_until": ["late", None, float("nan"), float("inf"), 10**12, -1],
}
FOREIGN_LIMITS: list[str | dict[str, Any]] = [
    *("", "[]", "7", "null", '"x"', "{", "[" * 5000, '{"limit": ' + "9" * 5000 + "}"),
    *({name: value} for name, values in FOREIGN_FIELDS.items() for value in values),
]


@pytest.mark.parametrize("foreign", FOREIGN_LIMITS, ids=lambda value: str(value)[:40])
def test_what_another_program_stored_as_declared_limit_stops_no_request(
    budget: StoredBudget, machine: Machine, clock: FakeClock, foreign: str | dict[str, Any]
) -> None:
    now = clock.now().timestamp()
    at = "2026-02-19T12:00:00Z"
    put = "INSERT INTO fact VALUES ('rate_limit', ?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    machine.sql(put, _fact(now), at)
    assert budget.free(clock.now()) == 50
    machine.sql(put, foreign if isinstance(foreign, str) else _fact(now, **foreign), at)
    assert budget.free(clock.now()) == 100
    assert budget.take(clock.now()) == 0
