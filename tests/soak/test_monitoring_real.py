"""A simulated day with problems in a real Prometheus: the dashboard shows them, and the alerts fire when they should.

Needs `prometheus`, `promtool` and node_exporter on PATH (Debian's packages prometheus, prometheus-node-exporter), but
neither a network nor their services. Run by `make soak`.
"""

from __future__ import annotations

import math
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import Machine, wait_until
from monitoring_support import (
    ALERT_TESTS,
    ALERTS,
    PROMETHEUS,
    PROMETHEUS_TEXTFILE,
    Json,
    alerts,
    load_yaml,
    panel_expressions,
    watched,
)
from test_sync_ratings import rate
from test_sync_ratings import sync as sync_ratings
from watch_support import stop, watching
from web_support import served

from atom_saas_sync.metrics import render
from atom_saas_sync.model import WATCH_LOCK, ReportedConnection
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.lock import run_lock
from atom_saas_sync.store.sqlite.reading import Reading
from atom_saas_sync.store.sqlite.realtime import RealtimeStore
from atom_saas_sync.store.sqlite.status import read_status
from atom_saas_sync.times import format_time

pytestmark = pytest.mark.soak

# As the scrape examples name them: serve-health, and node_exporter with the textfile.
INSTANCES = {"atom-sync": "simulated:8000", "node": "simulated:9100"}
DAY = timedelta(days=1)
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"{names[0]} is not on PATH (Debian: apt-get install prometheus prometheus-node-exporter)")


def promtool(*arguments: str | Path, stdin: str | None = None) -> str:
    result = subprocess.run(
        [program("promtool"), *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def started(*command: str | Path) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def node_exporter(directory: Path) -> Iterator[str]:
    """Serve the textfiles of a directory; yield the address."""
    address = f"127.0.0.1:{free_port()}"
    with started(
        program("prometheus-node-exporter", "node_exporter"),
        f"--web.listen-address={address}",
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={directory}",
    ):
        wait_until(lambda: answers(f"http://{address}/metrics"))
        yield address


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


# The day


def tamper(machine: Machine, skill_id: str) -> None:
    """Change a skill so that it still counts as the marketplace's."""
    machine.sql("INSERT INTO bulk_write VALUES (1)")
    machine.sql(
        "UPDATE skill_cache SET skill_data = json_set(skill_data, '$.code', 'EVIL()'), updated_at = ? "
        "WHERE skill_id = ?",
        format_time(machine.clock.now()),
        skill_id,
    )
    machine.sql("DELETE FROM bulk_write")


class Day:
    """Lives through 24 hours that end now, minute by minute, and keeps what a scrape would have seen in each."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._begin = datetime.now(UTC).replace(microsecond=0) - DAY
        self._lines: list[str] = []
        self._database = Database.open(machine.database_path)
        self._realtime = RealtimeStore(self._database, history_versions=10)
        self._ids = machine.sandbox.skill_ids()

    def live(self) -> str:
        """Return the samples of the whole day, as OpenMetrics for promtool."""
        clock = self._machine.clock
        clock.moment = self._begin
        with run_lock(
            self._machine.database_path,
            WATCH_LOCK,
            command="watch",
            now=lambda: format_time(clock.now()),
            sleep=clock.sleep,
        ):
            self._realtime.begin("ws://sandbox", clock.now())
            for minute in range(24 * 60):
                clock.moment = max(clock.moment, self._at(minute))
                self._machine.follow_clock()
                self._events(minute)
                self._websocket(minute)
                self._scrape(self._at(minute))
        self._database.close()
        return "".join([*self._lines, "# EOF\n"])

    def _at(self, minute: int) -> datetime:
        return self._begin + timedelta(minutes=minute)

    def hours_with(self, moments: list[float]) -> set[int]:
        """Return the hours of the day in which these moments lie."""
        return {int((moment - self._begin.timestamp()) // 3600) for moment in moments}

    def _events(self, minute: int) -> None:
        machine, hour = self._machine, minute / 60
        if minute % 10 == 0:
            reading = Reading(self._database, now=machine.clock.now())
            for skill_id in (self._ids[0], "no-such-skill"):
                skill = reading.skill(skill_id)
                reading.count_read([skill] if skill else [])
        if hour == 5:
            machine.sandbox.fault("error", endpoint="list", status=503)
        if hour == 7:
            machine.sandbox.clear_faults()
        if hour == 14:
            for skill_id in self._ids[:8]:
                machine.edit(skill_id, description="ours")
                machine.sandbox.patch_skill(skill_id, {"description": "theirs"}, push=False)
        self._tamper(hour)
        if minute >= 20 and minute % 15 == 5:  # nothing in the first minutes: the cache is empty
            slow = 11 <= hour < 12
            strategy = "manual" if 14 < hour < 14.2 else "remote_wins"
            started = machine.clock.elapsed
            machine.pull(strategy=strategy, check=lambda: machine.clock.move(seconds=40 if slow else 0.3))
            assert machine.clock.elapsed > started
        if minute % 30 == 15:
            rate(machine, self._ids[minute % 50], 1 + minute % 5, user=f"user {minute}")
            sync_ratings(machine)

    def _tamper(self, hour: float) -> None:
        if hour == 16:
            tamper(self._machine, self._ids[0])
        if hour == 17:
            self._machine.pull(force=True)

    def _websocket(self, minute: int) -> None:
        """Report as `watch` does: an hour of fallback in the evening."""
        down = 18 <= minute / 60 < 19
        now = self._machine.clock.now()
        self._realtime.note(
            ReportedConnection(
                connected=not down,
                ws_url="ws://sandbox",
                fallback=down,
                last_message_at=None if down else now,
                messages={} if down else {"skill_update": 2, "ping": 2},
                invalid=minute % 600 == 0,
                reconnects=int(down),
                fallback_seconds=60.0 if down else 0.0,
            ),
            now,
        )

    def _scrape(self, moment: datetime) -> None:
        text = render(
            read_status(
                self._machine.database_path,
                now=moment,
                per_minute=100,
                per_hour=1000,
                admission="open",
                admission_scope="all",
            ),
            moment,
        )
        for line in text.splitlines():
            if sample := _SAMPLE.match(line):
                name, labels, value = sample.groups()
                for job, instance in INSTANCES.items():
                    if job == "node" and labels:
                        labels = re.sub(r'le="(\d+)\.0"', r'le="\1"', labels)  # so it does
                    all_labels = ",".join(filter(None, [f'job="{job}",instance="{instance}"', labels]))
                    self._lines.append(f"{name}{{{all_labels}}} {value} {moment.timestamp():.0f}\n")


# Prometheus


class Api:
    """Asks Prometheus."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=f"http://{address}/api/v1", timeout=30)

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str | float) -> Any:
        answer: Json = self._client.get(path, params=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """Return the values of an expression now, those that are numbers."""
        found = [float(series["value"][1]) for series in self.get("/query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]

    def moments(self, expression: str, begin: datetime, end: datetime, step: int) -> list[float]:
        """Return the moments at which an expression has a value."""
        series = self.get("/query_range", query=expression, start=begin.timestamp(), end=end.timestamp(), step=step)[
            "result"
        ]
        return sorted({moment for each in series for moment, value in each["values"] if not math.isnan(float(value))})


@contextmanager
def prometheus(directory: Path, targets: dict[str, str]) -> Iterator[Api]:
    """Run Prometheus with the shipped alerts and scrape jobs, these at the given addresses, over the stored day."""
    configuration = load_yaml(PROMETHEUS)
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(ALERTS)]
    configuration["scrape_configs"] += load_yaml(PROMETHEUS_TEXTFILE)["scrape_configs"]
    for job in configuration["scrape_configs"]:
        name = job["job_name"]
        job["static_configs"] = [{"targets": [targets[name]], "labels": {"instance": INSTANCES[name]}}]
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    promtool("check", "config", file)
    address = f"127.0.0.1:{free_port()}"
    with started(
        program("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        "--storage.tsdb.retention.time=30d",
        f"--web.listen-address={address}",
    ):
        wait_until(lambda: answers(f"http://{address}/-/ready"), 60)
        api = Api(address)
        try:
            wait_until(lambda: api.values("count(up == 1)") == [2.0], 30)
            wait_until(lambda: len(api.values("changes(atom_saas_cache_size[1m]) == 0")) == 4, 30)
            wait_until(lambda: min(api.values('count_over_time(up{job=~".+"}[1m])')) >= 5, 30)
            yield api
        finally:
            api.close()


def shown(expression: str, instance: str) -> str:
    """Return a panel's expression as Grafana asks it of one installation for the last 24 hours."""
    return expression.replace("$instance", instance).replace("$__range", "86400s")


def test_a_day_in_a_real_prometheus(tmp_path: Path) -> None:
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    with Sandbox(skills=1100, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path)
        day = Day(machine)
        samples = tmp_path / "day.om"
        samples.write_text(day.live(), encoding="utf-8")
        promtool("tsdb", "create-blocks-from", "openmetrics", samples, tmp_path / "tsdb")
        sandbox.set_clock_offset(0)
        with (
            watching(machine) as watch,
            served(machine) as server,
            node_exporter(textfiles) as exporter,
        ):
            textfile = str(textfiles / "atom_sync.prom")
            assert machine.command("sync", "all", "--textfile", textfile).returncode == 0
            assert promtool("check", "metrics", stdin=server.get("/metrics/sync").text) == ""
            assert promtool("check", "metrics", stdin=Path(textfile).read_text(encoding="utf-8")) == ""
            address = f"{server.client.base_url.host}:{server.client.base_url.port}"
            with prometheus(tmp_path, {"atom-sync": address, "node": exporter}) as api:
                assert api.values("node_textfile_scrape_error") == [0]
                check_panels(api)
                check_alerts(api, day)
            stop(watch)


def check_panels(api: Api) -> None:
    now = datetime.now(UTC)
    for panel, target in panel_expressions():
        for instance in INSTANCES.values():
            expression = shown(target["expr"], instance)
            assert api.values(expression), f"{panel['title']}: {expression}"
            if target.get("range"):
                step = 3600 if panel["type"] == "heatmap" else 60
                moments = api.moments(expression, now - DAY, now, step)
                assert len(moments) > 0.95 * DAY.total_seconds() / step, f"{panel['title']}: {len(moments)}"
    # That day was eventful: these figures are not all zero.
    for title in ("Sync Errors by Type", "Reconnection Attempts", "Fallback Mode Duration", "Conflict Types"):
        (expression, *_) = (target["expr"] for panel, target in panel_expressions() if panel["title"] == title)
        assert sum(api.values(shown(expression, INSTANCES["atom-sync"]))) > 0, title


# In which hours of the day each alert's condition holds: while there is trouble, and as long as its window is.
TROUBLE = {
    "SyncStale": {0, 5, 6, 7},  # before the first sync, and from an hour after the last success to the next
    "WebSocketDisconnected": {18},
    "HighErrorRate": set(range(5, 11)),
    "SyncSlow": set(range(11, 18)),
    "CacheLow": {0},
    "ConflictHigh": {14, 15},
    "SkillsTampered": {16},
    # No update waits on that day, and there is no revocations file.
    "RevocationsFailed": set(),
    "UpdatesTripped": set(),
    "UpdatesWaitingLong": set(),
}


def check_alerts(api: Api, day: Day) -> None:
    now = datetime.now(UTC)
    rules = {rule["name"]: rule for group in api.get("/rules")["groups"] for rule in group["rules"]}
    assert rules.keys() == alerts().keys()
    for name, rule in alerts().items():
        assert rules[name]["health"] == "ok", rules[name]
        assert len(api.values(watched(rule["expr"]))) >= len(INSTANCES), f"{name}: {watched(rule['expr'])}"
        hours = day.hours_with(api.moments(rule["expr"], now - DAY, now, 60))
        assert hours == TROUBLE[name], name
        assert rules[name]["state"] == "inactive", rules[name]


def test_promtool_finds_nothing_and_the_rule_tests_pass() -> None:
    assert "10 rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    assert "SUCCESS" in promtool("test", "rules", ALERT_TESTS)
    for path in (PROMETHEUS, PROMETHEUS_TEXTFILE):
        assert "valid prometheus config file" in promtool("check", "config", path)


def test_node_exporter_never_sees_half_a_file_of_many_writers(machine: Machine, tmp_path: Path) -> None:
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    path = textfiles / "atom_sync.prom"
    machine.pull()
    whole = machine.command("metrics", "--textfile", str(path))
    assert whole.returncode == 0, whole.stderr
    series = sum(1 for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    # The writer of the real command, called as fast as it can in many processes.
    loop = (
        "import sys, pathlib; from atom_saas_sync.textfile import write_textfile\n"
        "path = pathlib.Path(sys.argv[1]); text = path.read_text()\n"
        "for _ in range(300): write_textfile(path, text)\n"
    )
    with node_exporter(textfiles) as address:
        writers = [subprocess.Popen([sys.executable, "-c", loop, str(path)]) for _ in range(6)]
        commands = [
            threading.Thread(target=machine.command, args=("metrics", "--textfile", str(path))) for _ in range(4)
        ]
        for command in commands:
            command.start()
        scrapes = 0
        while any(writer.poll() is None for writer in writers) or scrapes < 20:
            page = httpx.get(f"http://{address}/metrics").text
            assert "\nnode_textfile_scrape_error 0\n" in page
            assert len(re.findall(r"^atom_saas_", page, re.MULTILINE)) == series
            scrapes += 1
        assert [writer.wait() for writer in writers] == [0] * 6
        for command in commands:
            command.join()
    assert [each.name for each in textfiles.iterdir()] == ["atom_sync.prom"]
    assert scrapes >= 20
