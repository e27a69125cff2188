"""A database belongs to one marketplace, and `db rebind` binds it to another."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Machine, wait_until

from atom_saas_sync.core.marketplace import marketplace_of
from atom_saas_sync.sandbox import Sandbox


@pytest.fixture
def other() -> Iterator[Sandbox]:
    """Return another marketplace, which has 20 skills of its own."""
    with Sandbox(skills=20, seed=8) as sandbox:
        yield sandbox


def pointed_at(sandbox: Sandbox) -> dict[str, str]:
    return {"ATOM_SAAS_API_URL": sandbox.url, "ATOM_SAAS_WS_URL": sandbox.ws_url, "ATOM_SAAS_API_TOKEN": sandbox.token}


def marketplace(machine: Machine) -> str | None:
    document = json.loads(machine.command("status", "--json").stdout)
    bound: str | None = document["database"]["marketplace"]
    return bound


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://api.atomsaas.com", "HTTPS://API.AtomSaaS.com:443/"),
        ("http://localhost:80/base", "http://LOCALHOST/base//"),
        ("http://[::1]:8600", "http://[0:0::1]:08600"),
        ("https://api.atomsaas.com", "https://api.atomsaas.com.:/"),
    ],
)
def test_spellings_of_one_marketplace(one: str, other: str) -> None:
    assert marketplace_of(one) == marketplace_of(other)


@pytest.mark.parametrize(
    "other",
    [
        "http://api.atomsaas.com/v2",
        "https://staging-api.atomsaas.com/v2",
        "https://api.atomsaas.com:8443/v2",
        "https://api.atomsaas.com/V2",
        "https://api.atomsaas.com",
    ],
)
def test_another_scheme_host_port_or_path_is_another_marketplace(other: str) -> None:
    assert marketplace_of("https://api.atomsaas.com/v2") != marketplace_of(other)


def test_the_first_answer_ties_the_database_and_an_error_does_not(machine: Machine) -> None:
    assert machine.command("sync", "skills", ATOM_SAAS_API_TOKEN="at_saas_wrong").returncode == 77
    assert marketplace(machine) is None
    assert machine.command("sync", "categories", "--dry-run").returncode == 0
    assert marketplace(machine) is None
    assert machine.command("sync", "skills", ATOM_SAAS_API_URL=f"{machine.sandbox.url.upper()}/").returncode == 0
    assert marketplace(machine) == machine.sandbox.url
    assert machine.command("sync", "skills").returncode == 0


def test_a_sync_that_was_cut_off_ties_the_database_too(machine: Machine, other: Sandbox) -> None:
    """Its stored data must not be mixed with another catalogue either."""
    machine.sandbox.fault("error", endpoint="list", page=2, status=500)
    first = machine.command("sync", "skills", "--no-categories", "--deadline", "30", ATOM_SAAS_SYNC_BATCH_SIZE="20")
    assert first.returncode == 69
    assert len(machine.cached()) == 40
    assert machine.command("sync", "skills", **pointed_at(other)).returncode == 78


@pytest.mark.parametrize(
    "command",
    [
        ("sync", "skills"),
        ("sync", "skills", "--dry-run"),
        ("sync", "categories"),
        ("sync", "ratings"),
        ("sync", "all", "--force"),
        ("watch",),
    ],
    ids=" ".join,
)
def test_another_marketplace_is_refused(
    machine: Machine, other: Sandbox, synced_database: object, command: tuple[str, ...]
) -> None:
    machine.database.restore(synced_database)
    bound = machine.sql("SELECT value FROM fact WHERE name = 'marketplace'")[0][0]
    before = machine.cached()
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'me', 5)", next(iter(before)))
    result = machine.command(*command, **pointed_at(other))
    assert result.returncode == 78
    assert f"belongs to {bound}, but ATOM_SAAS_API_URL is {other.url}" in result.stderr
    assert f"`atom-sync db rebind {other.url}`" in result.stderr
    assert other.counters()["requests"] == 0
    assert machine.cached() == before


def test_the_refusal_as_json_and_what_looks_around_says(
    machine: Machine, other: Sandbox, synced_database: object
) -> None:
    machine.database.restore(synced_database)
    refused = json.loads(machine.command("sync", "ratings", "--json", **pointed_at(other)).stdout)
    assert (refused["success"], refused["error"]["type"]) == (False, "wrong_marketplace")
    status = json.loads(machine.command("status", "--json", **pointed_at(other)).stdout)
    assert "wrong_marketplace" in status["health"]["notices"]
    findings = json.loads(machine.command("doctor", "--json", **pointed_at(other)).stdout)["findings"]
    found = next(each for each in findings if each["check"] == "marketplace")
    assert found["verdict"] == "problem"
    assert f"atom-sync db rebind {other.url}" in found["hint"]


@pytest.fixture(scope="module")
def synced_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Return a database that belongs to another marketplace, which runs on, so that nobody else gets its port."""
    with Sandbox(skills=30, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path_factory.mktemp("bound"))
        assert machine.command("sync", "skills").returncode == 0
        yield machine.database.save()


def rebind(machine: Machine, sandbox: Sandbox, *options: str) -> dict[str, Any]:
    result = machine.command("db", "rebind", sandbox.url, "--json", *options)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_the_preview_comes_first_and_without_a_yes_nothing_changes(machine: Machine, other: Sandbox) -> None:
    machine.command("sync", "skills")
    result = machine.command("db", "rebind", other.url)
    assert result.returncode == 2
    assert "would add 20 skills, update 0 and delete 60" in result.stdout
    assert "deleted: … and 50 more" in result.stdout
    assert "--yes" in result.stderr
    assert marketplace(machine) == machine.sandbox.url
    assert machine.command("db", "rebind", "file:///etc/passwd", "--yes").returncode == 2
    other.fault("error", endpoint="list", status=503)
    unreadable = machine.command("db", "rebind", other.url, "--yes", "--json", ATOM_SAAS_API_TIMEOUT_SECONDS="1")
    assert unreadable.returncode == 69
    assert marketplace(machine) == machine.sandbox.url
    assert rebind(machine, machine.sandbox)["changed"] is False


def test_after_a_rebind_the_next_sync_is_right(machine: Machine, other: Sandbox) -> None:
    machine.command("sync", "skills")
    shared, edited, conflicting = machine.sandbox.skill_ids()[:3]
    for name in (shared, conflicting):
        other.put_skill(machine.sandbox.skill(name))
    other.put_skill({**other.skill(conflicting), "description": "theirs"})
    machine.edit(edited, description="ours")
    machine.edit(conflicting, description="ours")
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'me', 5)", shared)
    assert machine.command("sync", "ratings").returncode == 0
    uploaded = machine.sql("SELECT rating, synced_to_saas FROM skill_rating")

    done = rebind(machine, other, "--yes")
    assert (done["former"], done["marketplace"]) == (machine.sandbox.url, other.url)
    assert (done["would_add"], done["would_delete"], done["would_conflict"]) == (20, 58, 2)
    assert machine.sql("SELECT count(*) FROM http_validator")[0][0] == 0
    # The deletions were approved; those of a later sync are not.
    result = json.loads(machine.command("sync", "skills", "--json", **pointed_at(other)).stdout)
    assert (result["added"], result["deleted"], result["reasons"]) == (20, 58, [])
    assert machine.cached() == {name: other.skill(name) for name in other.skill_ids()}
    kept = {
        row[0]: json.loads(row[1])["description"]
        for row in machine.sql("SELECT skill_id, local_data FROM conflict_log")
    }
    assert kept == {edited: "ours", conflicting: "ours"}
    assert machine.sql("SELECT rating, synced_to_saas FROM skill_rating") == uploaded
    assert machine.command("sync", "ratings", "--all", **pointed_at(other)).returncode == 0
    assert len(other.ratings()) == 1
    for name in other.skill_ids()[:15]:
        other.delete_skill(name)
    refused = json.loads(machine.command("sync", "skills", "--json", **pointed_at(other)).stdout)
    assert refused["reasons"] == ["deletions_refused"]


def test_a_rebind_does_not_wait_for_a_running_process(machine: Machine, other: Sandbox) -> None:
    machine.command("sync", "skills")
    with machine.started("watch") as service:
        wait_until(lambda: machine.sandbox.counters()["ws_open"] == 1)
        result = machine.command("db", "rebind", other.url, "--yes")
        assert result.returncode == 75
        # A service does not finish on its own, and neither command has --wait.
        for refused in (result, machine.command("watch")):
            assert f"`kill {service.pid}` ends it" in refused.stderr
            assert "--wait" not in refused.stderr
            assert "finish" not in refused.stderr
        service.send_signal(signal.SIGTERM)
        service.wait(60)
    assert machine.command("db", "rebind", other.url, "--yes", ATOM_SAAS_DATABASE_URL="none.db").returncode == 74


def test_a_running_watch_takes_no_other_marketplace_over(machine: Machine, other: Sandbox) -> None:
    settings = machine.directory / "service.env"
    machine.command("sync", "skills")
    unset = {"ATOM_SAAS_API_URL": "", "ATOM_SAAS_WS_URL": ""}
    lines = "ATOM_SAAS_API_URL={0.url}\nATOM_SAAS_WS_URL={0.ws_url}\n"
    settings.write_text(lines.format(machine.sandbox), encoding="utf-8")
    with machine.started("--env-file", str(settings), "watch", **unset) as service:
        wait_until(lambda: machine.sandbox.counters()["ws_open"] == 1)
        settings.write_text(lines.format(other), encoding="utf-8")
        service.send_signal(signal.SIGHUP)
        assert service.stderr is not None
        for line in service.stderr:
            if "was not reloaded" in line:
                break
        else:
            pytest.fail("the reload was not refused")
        assert f"belongs to {machine.sandbox.url}" in line
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
    assert other.counters()["requests"] == 0
