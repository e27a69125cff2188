"""Both programs at once: the Atom backend's ORM writes to all seven tables during forced syncs; a killed upload."""

from __future__ import annotations

import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).parent.parent / "backend"))
from backend_models import (
    CategoryCache,
    ConflictLog,
    FailedRatingUpload,
    SkillCache,
    SkillRating,
    SyncState,
    WebSocketState,
    backend,
    fill,
    rows,
)

pytestmark = pytest.mark.soak

WRITES = 500
LATER = datetime.now(UTC) + timedelta(days=1)


def write(engine: Engine, number: int) -> None:
    """Write to one of the seven tables, as the backend does in one transaction."""
    with Session(engine) as session:
        match number % 7:
            case 0:
                own = {"skill_id": f"own{number}", "name": "own"}
                session.add(SkillCache(skill_id=own["skill_id"], skill_data=own, expires_at=LATER))
            case 1:
                session.execute(select(CategoryCache).limit(1)).scalar_one().hit_count += 1
            case 2:
                session.execute(select(SyncState)).scalar_one().user_id = str(number)
            case 3:
                session.execute(select(WebSocketState)).scalar_one().rate_limit_messages_per_sec = number
            case 4:
                session.add(SkillRating(skill_id=f"s{number}", user_id="user", rating=4))
            case 5:
                data = {"skill_id": f"s{number}", "name": "s"}
                session.add(
                    ConflictLog(
                        skill_id=f"s{number}",
                        conflict_type="OTHER",
                        severity="LOW",
                        local_data=data,
                        remote_data=data,
                        resolved_at=LATER,
                        resolved_by="admin",
                    )
                )
            case 6:
                rating = session.execute(select(SkillRating).limit(1)).scalar_one()
                session.add(FailedRatingUpload(rating_id=rating.id, error_message=str(number), failed_at=LATER))
        session.commit()


@pytest.mark.parametrize("first", ["backend", "atom-sync"])
def test_writes_of_the_backend_beside_forced_syncs(machine: Machine, first: str) -> None:
    if first == "atom-sync":
        machine.pull()
    engine = backend(machine.database_path)
    if first == "backend":
        fill(engine, [dict(machine.sandbox.skill(name)) for name in machine.sandbox.skill_ids()[:20]])
    machine.command("db", "upgrade")
    if first == "backend":  # removes the backend's categories that the marketplace does not list
        assert machine.command("sync", "skills").returncode == 0
    if first == "atom-sync":
        write(engine, -3)  # failed uploads need a rating
    before = {table: len(found) for table, found in rows(engine).items()}
    errors: list[Exception] = []

    def work() -> None:
        for number in range(WRITES):
            try:
                write(engine, number)
            except Exception as error:  # noqa: BLE001 - counted
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    reports = [machine.command("sync", "skills", "--force", "--json") for _ in range(10)]
    thread.join(timeout=300)
    assert not thread.is_alive()
    assert errors == []
    assert [report.returncode for report in reports] == [0] * 10
    after = {table: len(found) for table, found in rows(engine).items()}
    written = {number % 7: len(range(number % 7, WRITES, 7)) for number in range(7)}
    for table, kind in (("skill_ratings", 4), ("conflict_log", 5), ("failed_rating_uploads", 6)):
        assert after[table] - before[table] == written[kind], table
    assert {name for name in machine.cached() if name.startswith("own")} == {f"own{n}" for n in range(0, WRITES, 7)}
    assert machine.command("db", "check").returncode == 0


def test_writes_of_the_backend_beside_watch(machine: Machine) -> None:
    machine.pull()
    engine = backend(machine.database_path)
    write(engine, -3)  # failed uploads need a rating
    variables = {"ATOM_SAAS_WS_URL": machine.sandbox.ws_url, "ATOM_SAAS_WS_ENABLED": "true"}
    with machine.started("watch", **variables) as process:
        assert machine.sandbox.wait_for_listeners(1)
        flood = threading.Thread(target=machine.sandbox.flood, args=(1000,))
        flood.start()
        for number in range(WRITES):
            write(engine, number)
        flood.join(60)
        process.terminate()
        _, logged = process.communicate(timeout=60)
    assert process.returncode == 0, logged
    assert "database" not in logged, logged
    assert {name for name in machine.cached() if name.startswith("own")} == {f"own{n}" for n in range(0, WRITES, 7)}
    assert machine.command("db", "check").returncode == 0


def test_a_rating_of_the_orm_is_sent_once_although_the_run_is_killed(machine: Machine) -> None:
    machine.pull()
    engine = backend(machine.database_path)
    with Session(engine) as session:
        session.add(SkillRating(skill_id=machine.sandbox.skill_ids()[0], user_id="user", rating=4, review="fine"))
        session.commit()
    machine.sandbox.fault("hang", endpoint="ratings", value="body", times=1)
    with machine.started("sync", "ratings") as process:
        wait_until(lambda: bool(machine.sandbox.requests("ratings")))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    machine.sandbox.clear_faults()
    assert machine.command("sync", "ratings").returncode == 0
    assert [each["rating"] for each in machine.sandbox.ratings()] == [4]
    (rating,) = rows(engine)["skill_ratings"]
    assert (rating["synced_to_saas"], rating["remote_rating_id"]) == (True, machine.sandbox.ratings()[0]["rating_id"])
