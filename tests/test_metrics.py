"""Metrics reflect the database, with the same values from every source."""

from __future__ import annotations

import json
import math
import os
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import Machine
from machine_databases import FileDatabase
from prometheus_client.parser import text_string_to_metric_families

from atom_saas_sync import __version__
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.metrics import render
from atom_saas_sync.model import CONFLICT_TYPES, METRIC_ERRORS, SEVERITIES, STRATEGIES, Status, WebSocketState
from atom_saas_sync.store.sqlite.counters import increment
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.textfile import write_textfile

NOW = datetime(2026, 2, 19, 12, 1, tzinfo=UTC)

# docs/MONITORING_SETUP.md: the name, its type, and its labels.
METRICS = {
    "atom_saas_sync_duration_seconds": ("histogram", {"type", "le"}),
    "atom_saas_sync_success": ("counter", {"type"}),
    "atom_saas_sync_errors": ("counter", {"type", "error"}),
    "atom_saas_sync_last_success_timestamp_seconds": ("gauge", {"type"}),
    "atom_saas_sync_last_run_timestamp_seconds": ("gauge", {"type"}),
    "atom_saas_sync_running": ("gauge", {"type"}),
    "atom_saas_sync_items": ("counter", {"type", "action"}),
    "atom_saas_cache_size": ("gauge", {"type"}),
    "atom_saas_cache_expired": ("gauge", {"type"}),
    "atom_saas_tampered_skills": ("gauge", set()),
    "atom_saas_cache_requests": ("counter", {"result"}),
    "atom_saas_websocket_connected": ("gauge", set()),
    "atom_saas_websocket_reconnects": ("counter", set()),
    "atom_saas_websocket_messages": ("counter", {"type"}),
    "atom_saas_websocket_messages_invalid": ("counter", set()),
    "atom_saas_websocket_fallback": ("gauge", set()),
    "atom_saas_websocket_fallback_seconds": ("counter", set()),
    "atom_saas_websocket_last_message_timestamp_seconds": ("gauge", set()),
    "atom_saas_conflicts_detected": ("counter", {"type"}),
    "atom_saas_conflicts_resolved": ("counter", {"strategy"}),
    "atom_saas_conflicts_open": ("gauge", {"severity"}),
    "atom_saas_ratings_pending": ("gauge", set()),
    "atom_saas_ratings_failed": ("gauge", set()),
    "atom_saas_api_requests": ("counter", {"endpoint", "code"}),
    "atom_saas_api_rate_limit_remaining": ("gauge", set()),
    "atom_saas_updates_waiting": ("gauge", {"reason"}),
    "atom_saas_updates_oldest_waiting_seconds": ("gauge", set()),
    "atom_saas_quarantined_skills": ("gauge", set()),
    "atom_saas_admissions": ("counter", {"verdict", "by"}),
    "atom_saas_revocations_up": ("gauge", set()),
    "atom_saas_sync_build_info": ("gauge", {"version"}),
}


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def scrape(machine: Machine) -> str:
    return render(machine.status(NOW, per_minute=100, per_hour=1000), NOW)


def test_every_metric_is_there_from_the_start_with_its_type_and_labels() -> None:
    text = render(Status(read_at=NOW, database_path=""), NOW)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families.keys() == METRICS.keys()
    for name, (kind, labels) in METRICS.items():
        assert families[name].type == kind, name
        assert families[name].samples, name
        assert set().union(*(sample.labels for sample in families[name].samples)) == labels, name
        assert all(sample.timestamp is None for sample in families[name].samples), name
    assert "_created" not in text


def test_every_known_label_value_is_there_at_zero() -> None:
    text = render(Status(read_at=NOW, database_path=""), NOW)
    found = samples(text)
    for kind in ("skill", "rating"):
        for error in METRIC_ERRORS:
            assert found["atom_saas_sync_errors_total", frozenset({("type", kind), ("error", error)})] == 0
        assert found["atom_saas_sync_duration_seconds_count", frozenset({("type", kind)})] == 0
        for bound in ("0.1", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "120.0", "300.0", "+Inf"):
            assert found["atom_saas_sync_duration_seconds_bucket", frozenset({("type", kind), ("le", bound)})] == 0
    for kind in ("skill", "category", "rating"):
        for action in ("added", "updated", "unchanged", "deleted", "invalid", "failed"):
            assert found["atom_saas_sync_items_total", frozenset({("type", kind), ("action", action)})] == 0
    for name in CONFLICT_TYPES:
        assert found["atom_saas_conflicts_detected_total", frozenset({("type", name)})] == 0
    for strategy in STRATEGIES:
        assert found["atom_saas_conflicts_resolved_total", frozenset({("strategy", strategy)})] == 0
    for severity in SEVERITIES:
        assert found["atom_saas_conflicts_open", frozenset({("severity", severity)})] == 0
    assert found["atom_saas_sync_build_info", frozenset({("version", __version__)})] == 1


def test_runs_are_counted_and_counters_only_grow(machine: Machine) -> None:
    machine.fill()
    first = samples(scrape(machine))
    machine.pull()
    machine.pull(token="at_saas_wrong")
    text = scrape(machine)
    second = samples(text)
    assert all(second[name] >= count for name, count in first.items() if name[0].endswith("_total"))
    assert value(text, "atom_saas_sync_success_total", type="skill") == 2
    assert value(text, "atom_saas_sync_errors_total", type="skill", error="auth") == 1
    assert value(text, "atom_saas_sync_items_total", type="skill", action="added") == 60
    assert value(text, "atom_saas_sync_items_total", type="skill", action="unchanged") == 60
    assert value(text, "atom_saas_cache_size", type="skills") == 60
    assert value(text, "atom_saas_api_requests_total", endpoint="skills", code="304") >= 1
    assert value(text, "atom_saas_sync_last_success_timestamp_seconds", type="skill") == machine.clock.now().timestamp()


def test_the_stored_buckets_are_shown_cumulative(machine: Machine) -> None:
    machine.fill()
    machine.sql("DELETE FROM counter WHERE name LIKE 'atom_saas_sync_duration%'")
    for bucket, count in (("0.5", 3), ("60.0", 2), ("+Inf", 1)):
        machine.sql(
            "INSERT INTO counter VALUES ('atom_saas_sync_duration_seconds_bucket', ?, ?)",
            f'{{"le": "{bucket}", "type": "skill"}}',
            count,
        )
    machine.sql("INSERT INTO counter VALUES ('atom_saas_sync_duration_seconds_sum', '{\"type\": \"skill\"}', 431.5)")
    text = scrape(machine)
    name = "atom_saas_sync_duration_seconds"
    bounds = ("0.1", "0.5", "1.0", "30.0", "60.0", "300.0", "+Inf")
    assert [value(text, f"{name}_bucket", type="skill", le=bound) for bound in bounds] == [0, 3, 3, 3, 5, 5, 6]
    assert value(text, f"{name}_count", type="skill") == 6
    assert value(text, f"{name}_sum", type="skill") == 431.5


def write_counter(machine: Machine, name: str, labels: str, count: object) -> None:
    machine.sql(
        "INSERT INTO counter VALUES (?, ?, ?) ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value",
        name,
        labels,
        count,
    )


def test_counters_of_another_version_are_rendered_and_lose_no_sum(machine: Machine, tmp_path: Path) -> None:
    machine.fill()
    machine.sql("DELETE FROM counter")
    # An older version knew fewer labels, a newer one more, or other values.
    write_counter(machine, "atom_saas_sync_success_total", "{}", 2)
    write_counter(machine, "atom_saas_sync_success_total", '{"type": "skill"}', 3)
    write_counter(machine, "atom_saas_conflicts_detected_total", '{"severity": "LOW", "type": "OTHER"}', 4)
    write_counter(machine, "atom_saas_conflicts_detected_total", '{"severity": "HIGH", "type": "OTHER"}', 5)
    write_counter(machine, "atom_saas_websocket_reconnects_total", '{"reason": "network"}', 6)
    write_counter(machine, "atom_saas_sync_errors_total", '{"error": "gate", "type": "backup"}', 7)
    write_counter(machine, "atom_saas_of_the_future_total", "{}", 8)
    write_counter(machine, "republished", '{"by": "poll"}', 9)
    write_counter(machine, "atom_saas_cache_requests_total", '{"kind": "skill"}', 1)
    write_counter(machine, "atom_saas_cache_requests_total", '{"kind": "skill", "result": "hit"}', 2)
    # Another program's rows.
    for labels in ("", "null", "[1]", "[" * 100_000, '{"type": 1, "error": {}}', '{"type": "\\ud83d", "error": null}'):
        write_counter(machine, "atom_saas_sync_errors_total", labels, 1)
    no_number = "many" if isinstance(machine.database, FileDatabase) else math.nan
    write_counter(machine, "atom_saas_sync_success_total", '{"type": "rating"}', no_number)

    result = machine.command("metrics", "--textfile", str(tmp_path / "atom_sync.prom"))
    assert (result.returncode, result.stderr) == (0, "")
    text = (tmp_path / "atom_sync.prom").read_text(encoding="utf-8")
    assert value(text, "atom_saas_sync_success_total", type="") == 2
    assert value(text, "atom_saas_sync_success_total", type="skill") == 3
    assert value(text, "atom_saas_sync_success_total", type="rating") == 0
    assert value(text, "atom_saas_conflicts_detected_total", type="OTHER") == 9
    assert value(text, "atom_saas_websocket_reconnects_total") == 6
    assert value(text, "atom_saas_sync_errors_total", type="backup", error="gate") == 7
    assert "of_the_future" not in text
    assert json.loads(machine.command("status", "--json").stdout)["cache"]["republished"] == 9
    reads = machine.command("cache", "stats", "--json")
    assert (reads.returncode, reads.stderr) == (0, "")
    assert '"hit": 2' in reads.stdout


def test_buckets_of_another_version_count_in_the_bucket_that_holds_them(machine: Machine) -> None:
    machine.fill()
    machine.sql("DELETE FROM counter")
    name = "atom_saas_sync_duration_seconds"
    for bound in ("0.25", "45", "600.0", "odd"):
        write_counter(machine, f"{name}_bucket", f'{{"host": "a", "le": "{bound}", "type": "skill"}}', 1)
    write_counter(machine, f"{name}_bucket", '{"le": "0.5"}', 1)
    write_counter(machine, f"{name}_sum", '{"host": "a", "type": "skill"}', 700)
    write_counter(machine, f"{name}_sum", "{}", 0.5)
    text = scrape(machine)
    bounds = ("0.1", "0.5", "30.0", "60.0", "300.0", "+Inf")
    assert [value(text, f"{name}_bucket", type="skill", le=bound) for bound in bounds] == [0, 1, 1, 2, 2, 4]
    assert value(text, f"{name}_sum", type="skill") == 700
    assert value(text, f"{name}_count", type="") == 1


@pytest.mark.sqlite("a room of its store, like that of the other in tests/store/postgresql")
def test_the_store_writes_only_counters_that_the_registry_knows(machine: Machine) -> None:
    with Database.open(machine.database_path) as database, database.transaction() as connection:
        for name, labels in (
            ("atom_saas_of_nobody_total", {}),
            ("atom_saas_sync_success_total", {}),
            ("atom_saas_sync_success_total", {"type": "skill", "host": "a"}),
            ("atom_saas_sync_errors_total", {"type": "skill", "error": "bad luck"}),
        ):
            with pytest.raises(ValueError, match=name):
                increment(connection, name, 1, **labels)
        increment(connection, "atom_saas_api_requests_total", endpoint="skills", code="418")
    text = scrape(machine)
    assert value(text, "atom_saas_api_requests_total", endpoint="skills", code="418") == 1
    assert value(text, "atom_saas_sync_success_total", type="skill") == 0


@pytest.mark.parametrize(
    ("alive", "heartbeat", "expected"),
    [(True, 30, 1), (False, 30, 0), (True, 660, 0)],
)
def test_gauges_of_a_process_that_is_gone_are_zero(*, alive: bool, heartbeat: int, expected: int) -> None:
    seen = NOW - timedelta(seconds=heartbeat)
    websocket = WebSocketState(connected=True, alive=alive, fallback_to_polling=True, heartbeat_at=seen)
    text = render(Status(read_at=NOW, database_path="", websocket=websocket), NOW)
    assert value(text, "atom_saas_websocket_connected") == expected
    assert value(text, "atom_saas_websocket_fallback") == expected


def test_a_killed_run_does_not_count_as_running(machine: Machine) -> None:
    machine.fill()
    machine.sql("UPDATE sync_run SET status = 'running', finished_at = NULL")
    assert value(scrape(machine), "atom_saas_sync_running", type="skill") == 0


def test_command_and_textfile_say_the_same(machine: Machine, tmp_path: Path) -> None:
    textfile = tmp_path / "atom_sync.prom"
    assert machine.command("sync", "skills", "--textfile", str(textfile)).returncode == 0
    printed = samples(machine.command("metrics").stdout)
    written = samples(textfile.read_text(encoding="utf-8"))
    free = ("atom_saas_api_rate_limit_remaining", frozenset[tuple[str, str]]())  # grows by the second
    assert {**printed, free: 0} == {**written, free: 0}
    assert written["atom_saas_sync_success_total", frozenset({("type", "skill")})] == 1


def test_a_failed_sync_writes_the_textfile_too(machine: Machine, tmp_path: Path) -> None:
    textfile = tmp_path / "atom_sync.prom"
    result = machine.command("sync", "skills", "--textfile", str(textfile), ATOM_SAAS_API_TOKEN="at_saas_wrong")
    assert result.returncode == 77
    assert value(textfile.read_text(encoding="utf-8"), "atom_saas_sync_errors_total", type="skill", error="auth") == 1


def test_there_are_metrics_even_without_a_database(machine: Machine) -> None:
    result = machine.command("metrics")
    assert result.returncode == 0
    assert value(result.stdout, "atom_saas_cache_size", type="skills") == 0
    assert not machine.database.exists()


@pytest.fixture
def tight_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_textfile_is_readable_by_all_and_leaves_nothing_beside(tmp_path: Path, tight_umask: None) -> None:
    path = tmp_path / "a.prom"
    write_textfile(path, "first\n")
    write_textfile(path, "second\n")
    assert path.read_text(encoding="utf-8") == "second\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["a.prom"]


def test_the_textfile_follows_no_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious", encoding="utf-8")
    (tmp_path / "a.prom").symlink_to(target)
    with pytest.raises(DatabaseError, match="not a regular file"):
        write_textfile(tmp_path / "a.prom", "text\n")
    assert target.read_text(encoding="utf-8") == "precious"
    with pytest.raises(DatabaseError, match="not a regular file"):
        write_textfile(tmp_path, "text\n")
    with pytest.raises(DatabaseError, match="cannot write"):
        write_textfile(tmp_path / "nowhere" / "a.prom", "text\n")


@pytest.mark.parametrize("arguments", [("metrics",), ("sync", "skills")])
def test_the_textfile_replaces_metrics_and_nothing_else(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.fill()
    for content in ("A_TOKEN=1\n", "a note", "# a setting\nset = 1\n", '{"a": 1}', "SQLite format 3\0"):
        other = machine.directory / "other"
        other.write_text(content, encoding="utf-8")
        result = machine.command(*arguments, "--textfile", str(other))
        assert result.returncode == 2, content
        assert "not a file of metrics" in result.stderr
        assert other.read_text(encoding="utf-8") == content
    database = FileDatabase(machine.directory / "own.db")
    own = {"ATOM_SAAS_DATABASE_URL": database.url}
    assert machine.command("sync", "skills", **own).returncode == 0
    assert machine.command(*arguments, "--textfile", database.url, **own).returncode == 2
    assert database.sql("SELECT count(*) FROM skill_cache", ()) != [(0,)]
    for content in ("", "\0\0", "# of yesterday\n", 'a_total{b="c d"} 1e3\nother -Inf 17\n', "# a comment\n" * 6000):
        other.write_text(content, encoding="utf-8")
        assert machine.command(*arguments, "--textfile", str(other)).returncode == 0, content
        assert "atom_saas_sync_success_total" in other.read_text(encoding="utf-8")
    other = other.rename(machine.directory / "damaged.prom")
    other.write_bytes(b"\xff garbage")
    assert machine.command(*arguments, "--textfile", str(other)).returncode == 0
    assert "atom_saas_sync_success_total" in other.read_text(encoding="utf-8")


def test_writers_at_once_never_leave_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    texts = {f"{letter * 200_000}\n" for letter in "ab"}
    write_textfile(path, next(iter(texts)))
    done = threading.Event()

    def write(text: str) -> None:
        for _ in range(40):
            write_textfile(path, text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    seen: set[str] = set()
    bad_names: set[str] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text(encoding="utf-8"))
            bad_names.update(each.name for each in tmp_path.glob("*.prom") if each != path)
            bad_names.update(each.name for each in tmp_path.glob(".*.prom"))

    reader = threading.Thread(target=read)
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen <= texts
    assert bad_names == set()


def test_as_json_there_is_every_sample(machine: Machine) -> None:
    machine.fill()
    text = machine.command("metrics").stdout
    document = json.loads(machine.command("metrics", "--json").stdout)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert (document["success"], document["total"], len(document["metrics"])) == (True, len(lines), len(lines))
    assert {each["name"] for each in document["metrics"]} == {line.partition("{")[0].split()[0] for line in lines}
    written = json.loads(machine.command("metrics", "--textfile", "m.prom", "--json").stdout)
    assert written == {"success": True, "textfile": str(machine.directory / "m.prom")}
