"""The real `sync` commands for scripts, timers and users."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Json, Machine, wait_until

from atom_saas_sync.sandbox import Sandbox

KEYS = {
    "success", "run_id", "status", "dry_run", "skills_synced", "categories_synced", "changed", "complete",
    "added", "updated", "unchanged", "deleted", "invalid", "conflicts", "requests", "not_modified",
    "bytes_received", "duration_seconds", "reasons", "error",
}  # fmt: skip


def _document(result: subprocess.CompletedProcess[str], exit_code: int) -> Json:
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    document: Json = json.loads(result.stdout)
    assert document.keys() >= KEYS
    return document


def test_first_and_second_sync(machine: Machine) -> None:
    first = _document(machine.command("sync", "skills", "--json"), 0)
    assert (first["success"], first["added"], first["changed"], first["error"]) == (True, 60, True, None)
    second = _document(machine.command("sync", "skills", "--json"), 0)
    assert (second["changed"], second["unchanged"], second["requests"]) == (False, 60, second["not_modified"])
    assert machine.cached() == machine.listed()


def test_for_people_the_result_is_on_stdout_and_greppable(machine: Machine) -> None:
    result = machine.command("sync", "skills")
    assert result.stdout.startswith("Sync completed: 60 skills, ")
    assert "\x1b" not in result.stdout + result.stderr
    assert result.stderr.splitlines() == [
        f"marketplace: {machine.sandbox.url.partition('//')[2]} (ATOM_SAAS_API_URL from environment)"
    ]


def test_the_url_of_the_backend_s_example_needs_no_dialect(machine: Machine) -> None:
    result = machine.command("sync", "skills", ATOM_SAAS_API_URL=f"{machine.sandbox.url}/api/v1/marketplace")
    assert (result.returncode, result.stdout[:25]) == (0, "Sync completed: 60 skills"), result.stderr


def test_a_sync_warns_of_urls_of_two_platforms(machine: Machine) -> None:
    result = machine.command("sync", "skills", ATOM_SAAS_WS_URL="wss://atomagentos.com/api/ws/satellite/connect")
    assert (result.returncode, "belong to different platforms" in result.stderr) == (0, True), result.stderr


# Logs and failures


def test_quiet_by_default_more_with_each_v(machine: Machine) -> None:
    plain = machine.command("sync", "skills", ATOM_SAAS_SYNC_BATCH_SIZE="25")
    assert (plain.returncode, len(plain.stderr.splitlines())) == (0, 1), "the host alone"
    machine.sandbox.patch_skill(machine.sandbox.skill_ids()[0], {"description": "news"})
    some = machine.command("sync", "skills", "-v", ATOM_SAAS_SYNC_BATCH_SIZE="25")
    assert "read the list: 60 skills on 3 pages" in some.stderr
    assert "GET" not in some.stderr


@pytest.mark.parametrize("option", [["-vv"], ["-v", "-v"], ["--log-level", "debug"]])
def test_each_request_and_each_page_can_be_logged(machine: Machine, option: list[str]) -> None:
    first = machine.command("sync", "skills", *option, ATOM_SAAS_SYNC_BATCH_SIZE="25").stderr
    number = r"\d+ bytes in \d+ ms"
    assert re.search(rf"GET /api/v1/categories: 200, {number}$", first, re.MULTILINE)
    assert len(re.findall(rf"GET /api/v1/skills\?page=\d&page_size=25: 200, {number}$", first, re.MULTILINE)) == 3
    assert "page 1: 25 new, 0 changed, 0 unchanged" in first
    assert "page 3: 10 new, 0 changed, 0 unchanged" in first
    machine.sandbox.patch_skill(machine.sandbox.skill_ids()[0], {"description": "news"})
    again = machine.command(*option, "sync", "skills", ATOM_SAAS_SYNC_BATCH_SIZE="25").stderr
    assert len(re.findall(r"page=\d&page_size=25: 304, 0 bytes in \d+ ms, cache hit$", again, re.MULTILINE)) == 2
    assert len(re.findall(r"page \d: unchanged \(cache hit\)$", again, re.MULTILINE)) == 2
    assert len(re.findall(r"page \d: 0 new, 1 changed, (?:24|9) unchanged$", again, re.MULTILINE)) == 1
    assert machine.sandbox.token not in first + again


def test_requests_are_logged_for_programs_too(machine: Machine) -> None:
    machine.command("ratings", "add", machine.sandbox.skill_ids()[0], "5", "--force")
    logged = machine.command("sync", "all", "--log-format", "json", "-vv").stderr
    lines = [json.loads(line) for line in logged.splitlines()]
    sent = [line for line in lines if line.get("method") == "POST"]
    assert [line["status"] for line in sent] == ["201"]
    assert sent[0]["milliseconds"] > 0
    assert sent[0]["bytes"] > 0
    assert sent[0]["cache_hit"] is False
    assert [line["new"] for line in lines if line.get("page") == 1] == [60]


@pytest.mark.parametrize("kind", ["skills", "categories", "ratings", "all"])
def test_a_failure_is_reported_once(machine: Machine, kind: str) -> None:
    machine.sandbox.set_clock_offset(0)
    machine.command("sync", "skills")
    machine.command("ratings", "add", machine.sandbox.skill_ids()[0], "5")
    machine.sandbox.fault("error", status=503, times=1000)
    for option in ([], ["-q"], ["-v"]):
        result = machine.command("sync", kind, *option, "--deadline", "0.1")
        assert result.returncode == 75, (option, result.stderr)
        lines = [line for line in result.stderr.splitlines() if not line.startswith(("  → ", "marketplace: "))]
        assert lines[-1].startswith("atom-sync: the deadline "), (
            option,
            lines,
        )  # passed or ended, depending on the speed
        assert len(lines) == 1 or option == ["-v"], (option, lines)


def test_a_long_plan_is_the_summary_and_some_named_lines(machine: Machine) -> None:
    lines = machine.command("sync", "skills", "--dry-run").stdout.splitlines()
    assert lines[0].startswith("Dry run: 60 skills, ")
    planned = [line for line in lines if "would be added: " in line]
    assert len(planned) == 20
    assert lines[-1] == "  … and 40 more (--json)"
    named = {f"{skill_id}  {skill['name']}" for skill_id, skill in machine.listed().items()}
    assert {line.partition("would be added: ")[2] for line in planned} <= named
    assert not machine.database.exists()


def test_a_plan_names_what_would_be_deleted_and_leaves_out_what_stays(machine: Machine) -> None:
    machine.command("sync", "skills")
    gone, changed = machine.sandbox.skill_ids()[:2]
    name = machine.listed()[gone]["name"]
    machine.sandbox.delete_skill(gone)
    machine.sandbox.patch_skill(changed, {"description": "news"})
    lines = machine.command("sync", "skills", "--dry-run").stdout.splitlines()
    planned = sorted(line.strip() for line in lines if "would be" in line)
    assert planned[0] == f"would be deleted: {gone}  {name}"
    assert planned[1].startswith("would be updated: ")
    assert len(planned) == 2
    plan = json.loads(machine.command("sync", "skills", "--dry-run", "--json").stdout)["plan"]
    assert {each["skill_id"]: each["name"] for each in plan if each["outcome"] == "deleted"} == {gone: name}


def test_a_long_plan_of_ratings_and_of_a_purge_is_cut_too(machine: Machine) -> None:
    machine.command("sync", "skills")
    machine.sql(
        "INSERT INTO skill_rating (skill_id, user_id, rating) "
        "SELECT skill_id, 'ann', 4 FROM skill_cache ORDER BY skill_id LIMIT 25"
    )
    for words, total in ((["sync", "ratings"], 25), (["cache", "purge", "--all"], 60)):
        lines = machine.command(*words, "--dry-run").stdout.splitlines()
        assert len(lines) == 22, words
        assert str(total) in lines[0], words
        assert lines[-1] == f"  … and {total - 20} more (--json)", words


@pytest.mark.parametrize(
    ("fault", "words", "code"),
    [
        ({"kind": "invalid_items", "endpoint": "list", "value": "name_missing"}, ["skills", "--force"], 65),
        ({"kind": "error", "status": 401}, ["skills"], 77),
        ({"kind": "error", "status": 401}, ["categories", "--json"], 77),
        ({"kind": "error", "endpoint": "list", "status": 410}, ["all"], 65),
        ({"kind": "error", "endpoint": "ratings", "status": 422}, ["ratings", "--retry-failed"], 1),
    ],
)
def test_quiet_leaves_the_result_and_one_error(
    machine: Machine, fault: dict[str, Any], words: list[str], code: int
) -> None:
    machine.command("sync", "skills")
    machine.command("ratings", "add", machine.sandbox.skill_ids()[0], "5")
    machine.sandbox.fault(**fault)
    for option in ([], ["-q"]):
        result = machine.command("sync", *words, *option)
        assert result.returncode == code, result.stderr
        assert result.stdout
        told = [line for line in result.stderr.splitlines() if not line.startswith(("  → ", "marketplace: "))]
        assert told[-1].startswith("atom-sync: "), (option, told)
        assert len(set(told)) == len(told), told
        assert len(told) == 1 or not option, told


def test_categories(machine: Machine) -> None:
    document = _document(machine.command("sync", "categories", "--json"), 0)
    assert document["categories_synced"] > 0
    assert document["skills_synced"] == 0


def test_dry_run_shows_the_plan(machine: Machine) -> None:
    document = _document(machine.command("sync", "skills", "--dry-run", "--json"), 0)
    assert (document["dry_run"], document["run_id"], len(document["plan"])) == (True, None, 60)
    assert list(machine.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "fields", "exit_code", "kind"),
    [
        ("error", {"status": 401}, 77, "auth"),
        ("error", {"status": 404}, 65, "bad_response"),
        ("error", {"status": 400}, 65, "api_error"),
        ("redirect", {"value": "other"}, 65, "bad_response"),
    ],
)
def test_errors_are_one_clear_line_and_json(
    machine: Machine, fault: str, fields: dict[str, object], exit_code: int, kind: str
) -> None:
    machine.sandbox.fault(fault, endpoint="list", **fields)
    result = machine.command("sync", "skills", "--no-categories", "--json")
    document = _document(result, exit_code)
    assert (document["success"], document["status"], document["error"]["type"]) == (False, "failed", kind)
    assert machine.sandbox.token not in result.stdout + result.stderr


def test_a_deadline_ends_waiting_for_an_unreachable_marketplace(machine: Machine) -> None:
    result = machine.command("sync", "skills", "--json", "--deadline", "0.5", ATOM_SAAS_API_URL="http://127.0.0.1:9")
    document = _document(result, 75)
    assert document["reasons"] == ["deadline"]


def test_without_a_token_it_is_a_configuration_error(machine: Machine) -> None:
    result = machine.command("sync", "skills", "--json", ATOM_SAAS_API_TOKEN="")
    assert result.returncode == 78
    assert json.loads(result.stdout)["error"]["type"] == "config"


def test_local_only(machine: Machine) -> None:
    document = _document(machine.command("sync", "skills", "--json", ATOM_SAAS_ENABLED="false"), 0)
    assert (document["success"], document["status"], document["reasons"]) == (True, "skipped", ["disabled"])
    assert machine.sandbox.requests() == []


@pytest.mark.parametrize(("enabled", "status"), [("false", "skipped"), ("true", "success")])
def test_scheduled_runs_need_the_scheduler(machine: Machine, enabled: str, status: str) -> None:
    document = _document(machine.command("sync", "skills", "--scheduled", "--json", ENABLE_SCHEDULER=enabled), 0)
    assert document["status"] == status


def test_the_emergency_stop_holds_scheduled_runs_only(machine: Machine) -> None:
    machine.pull()
    machine.sql("INSERT INTO fact VALUES ('emergency_stop', 'on', '2026-02-19T12:00:00Z')")
    held = _document(machine.command("sync", "skills", "--scheduled", "--json", ENABLE_SCHEDULER="true"), 0)
    assert (held["status"], held["reasons"]) == ("skipped", ["stopped"])
    assert _document(machine.command("sync", "skills", "--json"), 0)["status"] == "success"


def test_a_second_run_finds_the_lock_and_a_waiting_one_gets_it(machine: Machine) -> None:
    machine.sandbox.fault("hang", endpoint="list", times=1)
    with machine.started("sync", "skills", ATOM_SAAS_API_TIMEOUT_SECONDS="60") as first:
        wait_until(lambda: machine.sandbox.requests("list"))
        locked = machine.command("sync", "skills", "--json")
        document = _document(locked, 75)
        assert (document["status"], document["reasons"]) == ("locked", ["locked"])
        assert str(first.pid) in document["error"]["message"]
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=60)
    assert _document(machine.command("sync", "skills", "--wait", "5", "--json"), 0)["added"] == 60
    counters = machine.sql("SELECT labels FROM counter WHERE name = 'atom_saas_sync_errors_total'")
    errors = {json.loads(labels)["error"] for (labels,) in counters}
    assert errors == {"locked", "interrupted"}
    assert machine.sql("SELECT total_syncs, failed_syncs FROM sync_state") == [(2, 1)]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_cleanly_and_the_next_continues(
    machine: Machine, number: signal.Signals, exit_code: int
) -> None:
    machine.sandbox.fault("hang", endpoint="list", page=3, times=1)
    variables = {"ATOM_SAAS_SYNC_BATCH_SIZE": "20"}
    with machine.started("sync", "skills", "--json", **variables) as process:
        wait_until(lambda: machine.database.exists() and len(machine.sandbox.requests("list")) >= 3)
        wait_until(lambda: machine.sql("SELECT count(*) FROM skill_cache") == [(40,)])
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == exit_code, err
    document = json.loads(out)
    assert (document["status"], document["reasons"], document["added"]) == ("partial", ["interrupted"], 40)
    rest = _document(machine.command("sync", "skills", "--json", **variables), 0)
    assert (rest["added"], rest["unchanged"], rest["not_modified"]) == (20, 40, 3)


def test_too_many_deletions_need_manual_approval(machine: Machine) -> None:
    machine.command("sync", "skills")
    for skill_id in machine.sandbox.skill_ids()[:20]:
        machine.sandbox.delete_skill(skill_id)
    result = machine.command("sync", "skills", "--json")
    document = _document(result, 4)
    assert (document["deleted"], document["reasons"]) == (0, ["deletions_refused"])
    assert "--max-delete 20" in result.stderr
    assert _document(machine.command("sync", "skills", "--json", "--max-delete", "20"), 0)["deleted"] == 20


@pytest.mark.parametrize(
    "arguments", [["--strategy", "remote-wins"], ["--max-delete", "-1"], ["--max-delete", "101%"], ["--wait", "x"]]
)
def test_wrong_usage(machine: Machine, arguments: list[str]) -> None:
    result = machine.command("sync", "skills", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says\n" * 100)


def _table_of_another_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE skill_cache (something TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.sqlite("files that are no database of ours")
@pytest.mark.parametrize("spoil", [Path.mkdir, _not_a_database, _table_of_another_program])
def test_databases_that_cannot_be_used(machine: Machine, spoil: object) -> None:
    assert callable(spoil)
    spoil(machine.database_path)
    result = machine.command("sync", "skills", "--json")
    assert result.returncode == 74
    assert json.loads(result.stdout)["error"]["type"] == "database"
    assert "Traceback" not in result.stderr
    assert machine.sandbox.requests() == []


@pytest.mark.sqlite("the disk of a server is another machine's")
def test_a_full_disk_is_74_and_the_database_stays_sound(machine: Machine) -> None:
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); "
        "sys.argv = ['atom-sync', 'sync', 'skills', '--json']; "
        "from atom_saas_sync.cli.main import run; run()"
    )
    result = machine.python(script)
    assert result.returncode == 74, result.stderr
    assert "Traceback" not in result.stderr
    assert machine.sql("PRAGMA integrity_check") == [("ok",)]
    assert _document(machine.command("sync", "skills", "--json"), 0)["status"] == "success"


def test_5000_skills_in_seven_requests_and_120_mb(tmp_path: Path) -> None:
    with Sandbox(skills=5000) as sandbox:
        machine = Machine(sandbox, tmp_path)
        result, peak = machine.peak_of_a_sync()
        document = _document(result, 0)
        assert document["requests"] == 7
        assert document["skills_synced"] == 5000
        assert peak < 120
        second = _document(machine.command("sync", "skills", "--json"), 0)
        assert second["not_modified"] == second["requests"] == 7
        assert second["unchanged"] == 5000


def test_a_screen_reports_a_failure_once_and_an_open_conflict_as_a_note(machine: Machine) -> None:
    failed = machine.command("sync", "skills", ATOM_SAAS_API_TOKEN="at_saas_wrong")
    assert "because" not in failed.stdout
    assert (failed.stdout + failed.stderr).count("401") == 1
    machine.command("sync", "skills")
    (name, *_) = machine.sandbox.skill_ids()
    machine.edit(name, description="ours")
    machine.sandbox.patch_skill(name, {"description": "theirs"})
    done = machine.command("sync", "skills", "--strategy", "manual")
    assert done.returncode == 0
    assert "note: 1 conflict needs a decision (`atom-sync conflicts list`)" in done.stdout
    assert "because" not in done.stdout
