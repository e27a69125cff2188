"""The Atom backend's own tables on a PostgreSQL server, with enforced foreign keys: both programs write to them."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from backend_models import (
    LONG_AGO,
    MODELS,
    Base,
    ConflictLog,
    FailedRatingUpload,
    Skill,
    SkillCache,
    SkillRating,
    SyncState,
    Tenant,
    User,
    WebSocketState,
    backend,
    fill,
    rows,
)
from conftest import Machine
from machine_databases import FileDatabase, MachineDatabase, ServerDatabase
from postgres_support import binaries
from sqlalchemy import Engine, delete, select, text, update
from sqlalchemy.orm import Session

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.usecases.follow_events import EventFollower


class Site:
    """A backend and atom-sync that use one database."""

    def __init__(self, machine: Machine) -> None:
        machine.database = ServerDatabase()
        self.machine = machine
        self.engine: Engine = backend(machine.database.url, create=False)

    def create(self, *skills: str) -> None:
        """Create the backend's tables, and rows for its foreign keys."""
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add_all([Tenant(id="default"), User(id="user"), *(Skill(id=each) for each in skills)])
            session.commit()

    def do(self, statement: Any) -> None:
        with Session(self.engine) as session:
            session.execute(text(statement) if isinstance(statement, str) else statement)
            session.commit()

    def edit(self, skill_id: str, **fields: Any) -> None:
        data = {**self.of(skill_id), **fields}
        self.do(update(SkillCache).where(SkillCache.skill_id == skill_id).values(skill_data=data))

    def of(self, skill_id: str, column: str = "skill_data") -> Any:
        with Session(self.engine) as session:
            row = session.scalar(select(SkillCache).where(SkillCache.skill_id == skill_id))
            return None if row is None else getattr(row, column)

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        result = self.machine.command(*arguments, **variables)
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        result = self.machine.command(*arguments, "--json")
        assert result.returncode == code, result.stdout + result.stderr
        return json.loads(result.stdout)

    def findings(self) -> list[str]:
        with self.machine.store(migrate=False, read_only=True) as store:
            return [each.message for each in store.maintenance().check(quick=False, signer=None)]


@pytest.fixture
def site(machine: Machine) -> Site:
    """Return a site whose database is empty."""
    return Site(machine)


@pytest.fixture
def names(machine: Machine) -> list[str]:
    return machine.sandbox.skill_ids()


@pytest.mark.postgresql
def test_a_backend_that_came_first_is_adopted(site: Site, names: list[str]) -> None:
    machine, listed = site.machine, site.machine.listed()
    Base.metadata.create_all(site.engine)
    fill(site.engine, [dict(machine.sandbox.skill(name)) for name in names[:20]])
    before = rows(site.engine)
    refused = site.run("sync", "skills", "--scheduled", code=74, ENABLE_SCHEDULER="true")
    assert "db upgrade" in refused
    assert site.json("db", "current")["origin"] == "backend"
    upgraded = machine.command("db", "upgrade", "--json")
    assert len(json.loads(upgraded.stdout)["adopted"]) == 7
    assert "adopted the Atom backend's database" in upgraded.stderr
    assert site.json("conflicts", "list")["total"] == 10
    assert site.json("sync", "skills")["conflicts"]["detected"] == 0
    after = rows(site.engine)
    assert {each["skill_id"]: each["skill_data"] for each in after["skill_cache"]} == listed
    for table in ("skill_cache", "conflict_log", "skill_ratings", "failed_rating_uploads"):
        ids = {each["id"] for each in before[table]}
        assert len(ids) == 20
        assert ids <= {each["id"] for each in after[table]}
    assert machine.sql("SELECT count(DISTINCT skill_id) FROM skill_version") == [(20,)]
    status = site.json("status")
    assert status["database"]["origin"] == "backend"
    assert (status["ratings"]["synced"], status["ratings"]["failed"]) == (10, 10)
    assert site.json("db", "check")["findings"] == []
    state = after["sync_state"][0]
    assert (state["status"], state["skills_cached"], state["last_sync_at"] is None) == ("idle", 60, False)
    assert after["websocket_state"][0]["reconnect_attempts"] == 4
    (change,) = [site.json("db", "downgrade", "base", "--yes")]
    assert len(change["adopted"]) == 7
    assert rows(site.engine) == after
    assert machine.sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'atom_sync%'") == [(0,)]


@pytest.mark.postgresql
def test_what_the_backend_writes_is_ours_at_once(site: Site, names: list[str]) -> None:
    machine = site.machine
    site.create()
    machine.pull()
    edited, deleted, expired, counted = names[:4]
    site.do(
        f"UPDATE skill_cache SET skill_data = skill_data || '{{\"name\": \"Mine\"}}' WHERE skill_id = '{edited}'; "
        f"UPDATE skill_cache SET hit_count = 7 WHERE skill_id = '{counted}'"
    )
    site.edit(deleted, name="Gone")
    site.do(delete(SkillCache).where(SkillCache.skill_id == deleted))
    site.do(update(SkillCache).where(SkillCache.skill_id == expired).values(expires_at=LONG_AGO))
    with Session(site.engine) as session:
        session.add(SkillCache(skill_id="local", skill_data={"skill_id": "local", "name": "Ours"}, expires_at=LONG_AGO))
        session.commit()
    sources = dict(machine.sql("SELECT skill_id, source FROM usable_skill WHERE source <> 'marketplace'"))
    assert sources == {edited: "edited", "local": "local"}
    assert machine.sql("SELECT skill_id FROM skill_cache WHERE hit_count = 7") == [(counted,)]
    assert machine.sql("SELECT skill_id FROM deleted_edit") == [(deleted,)]
    assert site.json("skills", "search", "Ours")["skills"][0]["skill_id"] == "local"
    assert [each["skill_id"] for each in site.json("skills", "list", "--modified")["skills"]] == [edited, "local"]
    # Another spelling of the same JSON is not an edit, and neither is the earlier text.
    site.do(update(SkillCache).where(SkillCache.skill_id == edited).values(skill_data=machine.listed()[edited]))
    assert site.json("skills", "list", "--modified")["total"] == 1
    site.do("TRUNCATE skill_cache")
    assert machine.sql("SELECT count(*) FROM skill_cache") == [(0,)]
    machine.pull(force=True)
    assert len(rows(site.engine)["skill_cache"]) == 60
    assert site.findings() == []


def test_a_conflict_is_one_conflict_for_both(site: Site, names: list[str]) -> None:
    machine = site.machine
    known, unknown = names[:2]
    site.create(known)
    machine.pull()
    for name in (unknown, known):
        machine.edit(name, description="mine")
        machine.sandbox.put_skill({**machine.sandbox.skill(name), "description": "theirs"})
    machine.pull(strategy="manual")
    ours = dict(machine.sql("SELECT skill_id, id FROM atom_sync.conflict_log"))
    (seen,) = rows(site.engine)["conflict_log"]
    assert (seen["skill_id"], seen["id"], seen["local_data"]["description"]) == (known, ours[known], "mine")
    site.do(
        update(ConflictLog).values(
            resolution_strategy="merge",
            resolved_data={**seen["local_data"], "description": "agreed"},
            resolved_at=LONG_AGO,
            resolved_by="admin",
        )
    )
    assert machine.pull(strategy="remote_wins").counts.conflicts_resolved == 1
    assert site.of(known)["description"] == "agreed"
    assert site.of(unknown)["description"] == "theirs"
    (seen,) = rows(site.engine)["conflict_log"]
    assert (seen["resolution_strategy"], seen["resolved_by"]) == ("merge", "admin")
    # Once the backend has the skill, the next run shows its conflict, under the same number.
    with Session(site.engine) as session:
        session.add(Skill(id=unknown))
        session.commit()
    machine.pull()
    assert {each["skill_id"]: each["id"] for each in rows(site.engine)["conflict_log"]} == ours
    with Session(site.engine) as session:
        session.add(ConflictLog(skill_id=known, conflict_type="X", severity="LOW", local_data={}, remote_data={}))
        session.commit()
    assert machine.sql("SELECT count(DISTINCT id) FROM atom_sync.conflict_log") == [(3,)]


def test_ratings_go_both_ways(site: Site, names: list[str]) -> None:
    machine = site.machine
    site.create(names[0])
    machine.pull()
    with Session(site.engine) as session:
        session.add(SkillRating(skill_id=names[0], user_id="user", rating=4, review="fine", synced_to_saas=True))
        session.commit()
    assert machine.send_ratings().counts.uploaded == 1
    (seen,) = rows(site.engine)["skill_ratings"]
    assert (seen["synced_to_saas"], seen["remote_rating_id"] is None) == (True, False)
    site.do(update(SkillRating).values(rating=2))
    assert rows(site.engine)["skill_ratings"][0]["synced_to_saas"] is False
    machine.sandbox.fault("error", endpoint="ratings", status=422, times=1)
    assert machine.send_ratings().counts.failed == 1
    (failed,) = rows(site.engine)["failed_rating_uploads"]
    assert failed["rating_id"] == seen["id"]
    site.do(delete(FailedRatingUpload))
    assert machine.send_ratings().counts.uploaded == 1
    # Of a user that the backend does not have, a rating stays with us.
    site.run("ratings", "add", names[0], "5", "--user", "stranger")
    assert machine.send_ratings().counts.uploaded == 1
    assert [each["user_id"] for each in rows(site.engine)["skill_ratings"]] == ["user"]
    site.do(delete(SkillRating))
    assert machine.sql("SELECT user_id FROM atom_sync.skill_ratings") == [("stranger",)]


@pytest.mark.postgresql
def test_the_backends_switches(site: Site) -> None:
    machine = site.machine
    site.create()
    machine.pull()
    site.do(update(SyncState).values(auto_sync_enabled=False))
    site.do(update(WebSocketState).values(websocket_enabled=False))
    assert machine.sql("SELECT websocket_enabled FROM atom_sync.websocket_state") == [(False,)]
    assert "has switched scheduled syncs off" in site.run("sync", "skills", "--scheduled", ENABLE_SCHEDULER="true")
    site.do(delete(SyncState))
    machine.pull()
    assert [each["id"] for each in rows(site.engine)["sync_state"]] == ["marketplace_sync"]


@pytest.mark.postgresql
def test_a_missing_tenant_is_named_with_its_cure(site: Site) -> None:
    Base.metadata.create_all(site.engine)
    told = site.run("sync", "skills", code=74)
    assert "tenants" in told
    assert "INSERT INTO tenants" in told
    assert site.machine.sql("SELECT to_regnamespace('atom_sync')") == [(None,)]
    site.do("INSERT INTO tenants VALUES ('default')")
    site.run("sync", "skills")


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE skill_cache DROP COLUMN hit_count", "skill_cache .*hit_count is missing"),
        ("ALTER TABLE sync_state ALTER auto_sync_enabled TYPE text", "auto_sync_enabled is text, not boolean"),
        ("ALTER TABLE conflict_log ALTER created_at DROP NOT NULL", "conflict_log .*created_at is not NOT NULL"),
        ("ALTER TABLE skill_ratings DROP CONSTRAINT uq_skill_user_rating", "skill_ratings .*user_id is not unique"),
        ("ALTER TABLE skill_cache ADD note text NOT NULL", "skill_cache .*further column note is NOT NULL"),
    ],
)
def test_another_shape_is_refused(site: Site, statement: str, words: str) -> None:
    site.create()
    site.do(statement)
    with pytest.raises(DatabaseError, match=words):
        site.machine.store()
    assert site.machine.sql("SELECT to_regnamespace('atom_sync')") == [(None,)]


@pytest.mark.postgresql
def test_further_columns_are_welcome(site: Site) -> None:
    site.create()
    site.do("ALTER TABLE skill_cache ADD note text, ADD seen integer NOT NULL DEFAULT 0")
    site.machine.pull()
    site.do("ALTER TABLE conflict_log ADD later text")
    assert site.findings() == []


def rights_finding(site: Site, url: str) -> Any:
    found = json.loads(site.machine.command("doctor", "--json", ATOM_SAAS_DATABASE_URL=url).stdout)
    (finding,) = [each for each in found["findings"] if each["check"] == "rights"]
    return finding


@pytest.mark.postgresql
def test_each_role_needs_only_rights_on_what_is_its_own(site: Site, names: list[str]) -> None:
    machine = site.machine
    site.create(*names[:2])
    url = machine.database.url
    ((database,),) = machine.sql("SELECT current_database()")
    owner, run = f"{database}_owner", f"{database}_run"
    site.do(f"CREATE ROLE {owner} LOGIN; CREATE ROLE {run} LOGIN; CREATE ROLE {run}_b")
    site.do(f"GRANT CREATE ON DATABASE {database} TO {owner}")
    try:
        site.do(f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}")
        told = site.run("db", "upgrade", code=74, ATOM_SAAS_DATABASE_URL=url.replace("atom@", f"{owner}@"))
        grants = "GRANT" + told.partition("GRANT")[2].replace("\n", " ")
        assert "SELECT, INSERT, UPDATE, DELETE, TRIGGER ON public.skill_cache" in grants
        assert "public.skill_ratings" not in grants
        asked = rights_finding(site, url.replace("atom@", f"{owner}@"))["hint"].removeprefix("run as the owner: ")
        assert "SELECT, INSERT, UPDATE, DELETE, TRIGGER ON TABLE public.skill_cache" in asked
        assert "public.skill_ratings" not in asked
        site.do(asked)
        site.run("db", "upgrade", ATOM_SAAS_DATABASE_URL=url.replace("atom@", f"{owner}@"))
        checked = site.run("db", "check", ATOM_SAAS_DATABASE_URL=url.replace("atom@", f"{owner}@"))
        assert "ratings are not shared" in checked
        rights = "GRANT SELECT, INSERT, UPDATE, DELETE"
        site.do(f"{rights}, TRIGGER ON skill_ratings, failed_rating_uploads TO {owner}")
        site.run("db", "upgrade", ATOM_SAAS_DATABASE_URL=url.replace("atom@", f"{owner}@"))
        site.do(f"GRANT USAGE ON SCHEMA atom_sync TO {run}; {rights} ON ALL TABLES IN SCHEMA atom_sync TO {run}")
        site.do(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA atom_sync TO {run}")
        ours = url.replace("atom@", f"{run}@")
        site.run("sync", "skills", ATOM_SAAS_DATABASE_URL=ours)
        site.run("ratings", "add", names[0], "4", "--user", "user", ATOM_SAAS_DATABASE_URL=ours)
        site.run("db", "check", ATOM_SAAS_DATABASE_URL=ours)
        found = rows(site.engine)
        assert (len(found["skill_cache"]), len(found["skill_ratings"])) == (60, 1)
        # Whoever asks doctor, it is the owner of our functions that needs the rights.
        assert rights_finding(site, ours)["verdict"] == "ok"
        site.do(f"REVOKE DELETE, TRIGGER ON skill_ratings FROM {owner}")
        asked = rights_finding(site, ours)["hint"]
        assert asked == f'run as the owner: GRANT DELETE ON TABLE public.skill_ratings TO "{owner}";'
        site.do(asked.removeprefix("run as the owner: "))
        assert rights_finding(site, ours)["verdict"] == "ok"
        # The backend's role has rights on its own tables alone.
        site.do(f"{rights} ON ALL TABLES IN SCHEMA public TO {run}_b")
        site.do(f"SET LOCAL ROLE {run}_b; UPDATE skill_cache SET skill_data = '{{}}' WHERE skill_id = '{names[0]}'")
        assert machine.sql("SELECT count(*) FROM usable_skill WHERE source = 'edited'") == [(1,)]
    finally:
        site.do(f"DROP OWNED BY {owner}, {run}, {run}_b CASCADE")
        site.do(f"DROP ROLE {owner}; DROP ROLE {run}; DROP ROLE {run}_b")


@pytest.mark.postgresql
def test_a_backend_that_comes_later_is_joined(site: Site, names: list[str]) -> None:
    machine = site.machine
    machine.pull()
    for name in names[:2]:
        machine.edit(name, description="mine")
        machine.sandbox.put_skill({**machine.sandbox.skill(name), "description": "theirs"})
    machine.pull(strategy="manual")
    Base.metadata.create_all(site.engine)  # finds the views, and makes the other tables
    with Session(site.engine) as session:
        session.add(Tenant(id="default"))
        session.commit()
    assert len(rows(site.engine)["skill_cache"]) == 60
    # A migration of the backend's makes its own tables.
    for model in MODELS:
        site.do(f"DROP VIEW {model.__tablename__}")
    assert len([each for each in site.findings() if "is missing" in each]) == 7
    Base.metadata.create_all(site.engine)
    with Session(site.engine) as session:
        session.add_all([Skill(id=names[0]), Skill(id=names[1])])
        session.flush()
        for name in (names[2], "local"):
            session.add(SkillCache(skill_id=name, skill_data={"skill_id": name, "name": "Old"}, expires_at=LONG_AGO))
        session.add(ConflictLog(skill_id=names[0], conflict_type="X", severity="LOW", local_data={}, remote_data={}))
        session.commit()
    assert len([each for each in site.findings() if "is not shared" in each]) == 7
    assert len(site.json("db", "upgrade")["adopted"]) == 7
    assert site.findings() == []
    found = rows(site.engine)
    assert len(found["skill_cache"]) == 61
    assert site.of(names[2]) == machine.listed()[names[2]]
    assert machine.sql("SELECT skill_id FROM skill_version") == [(names[2],)]
    assert len({each["id"] for each in found["conflict_log"]}) == 3
    assert [each["id"] for each in found["conflict_log"] if each["conflict_type"] == "X"] == [1]


@pytest.mark.postgresql
def test_triggers_that_were_off_are_found_and_made_up_for(site: Site, names: list[str]) -> None:
    machine = site.machine
    site.create()
    machine.pull()
    site.do("ALTER TABLE skill_cache DISABLE TRIGGER atom_sync_written")
    site.do(delete(SkillCache).where(SkillCache.skill_id == names[0]))
    site.edit(names[1], name="Unseen")
    assert [each for each in site.findings() if "disabled" in each]
    site.do("ALTER TABLE skill_cache ENABLE TRIGGER atom_sync_written")
    assert len(site.findings()) == 2
    site.run("db", "check", "--repair")
    assert site.of(names[0]) == machine.listed()[names[0]]
    assert machine.sql("SELECT skill_id FROM skill_version") == [(names[1],)]
    site.do("DROP TRIGGER atom_sync_waits ON skill_cache")
    site.run("db", "upgrade")
    assert site.findings() == []


@pytest.mark.postgresql
def test_a_copy_arrives_in_the_backends_tables_too(site: Site, names: list[str], tmp_path: Path) -> None:
    machine = site.machine
    site.create(*names[:1])
    here: MachineDatabase = machine.database
    source: MachineDatabase = FileDatabase(tmp_path / "source.db")
    machine.database = source
    machine.pull()
    machine.edit(names[0], description="mine")
    machine.sandbox.put_skill({**machine.sandbox.skill(names[0]), "description": "theirs"})
    machine.pull(strategy="manual")
    site.run("ratings", "add", names[0], "4", "--user", "user")
    site.run("db", "copy", "--to", here.url)
    machine.database = here
    found = rows(site.engine)
    assert [len(found[name]) for name in ("skill_cache", "conflict_log", "skill_ratings", "sync_state")] == [
        60,
        1,
        1,
        1,
    ]
    assert site.of(names[0])["description"] == "mine"
    assert site.findings() == []
    machine.send_ratings()
    assert rows(site.engine)["skill_ratings"][0]["synced_to_saas"] is True
    site.run("db", "copy", "--to", str(tmp_path / "back.db"))
    assert "is not empty" in site.run("db", "copy", "--to", here.url, code=74, ATOM_SAAS_DATABASE_URL=source.url)


@pytest.mark.postgresql
def test_a_text_that_jsonb_cannot_hold_is_an_invalid_item(site: Site, names: list[str]) -> None:
    machine = site.machine
    site.create()
    machine.sandbox.put_skill({**machine.sandbox.skill(names[0]), "description": "a\0b"})
    machine.sandbox.put_skill({**machine.sandbox.skill(names[1]), "description": "a\\u0000b"})
    assert machine.pull().counts.invalid == 1
    assert (site.of(names[0]), site.of(names[1])["description"]) == (None, "a\\u0000b")
    told = site.run("sync", "skills", code=65)
    assert names[0][:8] in told and "contains \\u0000" in told
    shown = json.dumps({**machine.sandbox.skill(names[2]), "description": "a\0b"})
    (machine.directory / "skill.json").write_text(shown)
    refused = site.run("skills", "edit", names[2], "--file", str(machine.directory / "skill.json"), code=2)
    assert "cannot be stored" in refused
    message = parse_frame(json.dumps({"type": "skill_update", "data": {"skill_id": names[2], "name": "a\0b"}}))
    assert isinstance(message, Message)
    with machine.store() as store:
        EventFollower(store.events(history_versions=10), strategy="remote_wins").apply([message], machine.clock.now())
    assert machine.cached()[names[2]] == machine.listed()[names[2]]
    # What got past us is in our table alone.
    machine.sql("UPDATE atom_sync.skill_cache SET skill_data = ? WHERE skill_id = ?", shown, names[2])
    assert site.of(names[2]) is None
    assert [each for each in site.findings() if "1 row of skill_cache is not in" in each]


@pytest.mark.postgresql
def test_both_write_at_the_same_time(site: Site, names: list[str]) -> None:
    machine = site.machine
    site.create()
    machine.pull()
    over = threading.Event()
    failures: list[Exception] = []
    written = []

    def write() -> None:
        for number, name in enumerate(itertools.cycle(names)):
            if over.is_set() and number > 3 * len(names):
                return
            try:
                if number % 3:
                    site.do(update(SkillCache).where(SkillCache.skill_id == name).values(hit_count=number))
                else:
                    site.edit(name, description=f"edit {number}")
            except Exception as error:  # noqa: BLE001 - what the backend would see is what is tested
                failures.append(error)
                return
            written.append(name)

    backend = threading.Thread(target=write)
    backend.start()
    try:
        for strategy in ("local_wins", "remote_wins", "local_wins"):
            assert machine.pull(force=True, strategy=strategy).status == "success"
    finally:
        over.set()
        backend.join(timeout=120)
    assert failures == []
    assert len(written) > 3 * len(names)
    assert site.findings() == []


@pytest.mark.postgresql
def test_a_backup_comes_back_into_the_backends_tables(site: Site, names: list[str], tmp_path: Path) -> None:
    machine = site.machine
    site.create(names[0])
    machine.pull()
    site.run("ratings", "add", names[0], "4", "--user", "user")
    path, file = f"{binaries()}:/usr/bin:/bin", str(tmp_path / "backup.dump")
    site.run("db", "backup", file, PATH=path)
    site.do(delete(SkillRating))
    site.edit(names[0], name="Later")
    site.do(delete(SkillCache).where(SkillCache.skill_id == names[1]))
    site.run("db", "restore", file, "--yes", PATH=path)
    assert {each["skill_id"]: each["skill_data"] for each in rows(site.engine)["skill_cache"]} == machine.listed()
    assert [each["rating"] for each in rows(site.engine)["skill_ratings"]] == [4]
    assert site.findings() == []
