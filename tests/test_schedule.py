"""`schedule`: units for systemd and a crontab with the configured intervals, shown, installed, removed."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import stat
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine
from machine_databases import FileDatabase

from atom_saas_sync.config import load_settings, value_of
from atom_saas_sync.core.schedule_files import MARK, SERVICES, TIMERS, Schedule, crontab, systemd_files
from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import UsageError
from atom_saas_sync.usecases.schedule import is_fresh, scheduled_run_is_due

PROJECT = Path(__file__).parent.parent
USUAL = {
    "skills_minutes": value_of("ATOM_SAAS_SYNC_INTERVAL_MINUTES"),
    "ratings_minutes": value_of("ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES"),
}


def schedule(**options: Any) -> Schedule:
    """Return a schedule with the default intervals, unless others are given."""
    return Schedule(**USUAL | options)


UNITS = systemd_files(schedule())
POLLS = ("atom-sync-skills.service", "atom-sync-ratings.service", "atom-sync-purge.service", "atom-sync-backup.service")


def test_the_files_of_the_project_are_what_the_command_renders() -> None:
    there = {
        str(path.relative_to(PROJECT / "systemd")): path.read_text(encoding="utf-8")
        for path in (PROJECT / "systemd").rglob("*")
        if path.is_file()
    }
    assert there == UNITS
    assert [path.name for path in (PROJECT / "cron").iterdir()] == ["atom-sync"]
    assert (PROJECT / "cron" / "atom-sync").read_text(encoding="utf-8") == crontab(schedule())


def settings_in(text: str) -> configparser.ConfigParser:
    """Parse a unit; systemd's format is close enough to that of Python where no key is repeated in a section."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the documentation of configparser says
    parser.read_string(text.replace("\\\n", " "))
    return parser


@pytest.mark.parametrize("unit", [*POLLS, *SERVICES])
def test_units_start_existing_commands(machine: Machine, unit: str) -> None:
    program, *arguments = shlex.split(settings_in(UNITS[unit])["Service"]["ExecStart"])
    assert program == schedule().executable
    result = machine.command(*arguments, "--help")
    assert result.returncode == 0, result.stderr


def test_every_job_of_the_crontab_is_a_command_of_ours(machine: Machine) -> None:
    jobs = [line for line in crontab(schedule()).splitlines() if " atom-sync  " in line and not line.startswith("#")]
    assert len(jobs) == 4
    for job in jobs:
        command = job.rpartition(f" {schedule().executable} ")[2].removesuffix(" >/dev/null")
        _, _, *arguments = shlex.split(command)  # without --env-file, whose file is not here
        assert machine.command(*arguments, "--help").returncode == 0, command


def test_a_job_of_the_crontab_neither_imports_from_its_directory_nor_leaves_a_core(tmp_path: Path) -> None:
    """As the units do. Each job is run by a shell, with a program in place of ours that tells how it was started."""
    program, nothing = tmp_path / "atom-sync", tmp_path / "sleep"
    program.write_text(f'#!/bin/sh\necho "$PWD $(umask) $(ulimit -Hc) $PYTHONSAFEPATH" >>{tmp_path}/told\n')
    nothing.write_text("#!/bin/sh\n")
    for each in (program, nothing):
        each.chmod(0o755)
    lines = crontab(schedule(executable=str(program))).splitlines()
    variables = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    jobs = [line.split("  atom-sync  ")[1] for line in lines if "  atom-sync  " in line]
    for job in jobs:
        environment = variables | {"PATH": f"{tmp_path}:{variables['PATH']}"}
        subprocess.run([variables["SHELL"], "-c", job], env=environment, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "told").read_text().splitlines() == ["/ 0077 0 1"] * len(jobs) and len(jobs) == 4


@pytest.mark.parametrize("unit", [*POLLS, *SERVICES])
def test_units_share_one_user_and_get_the_token_as_a_credential(unit: str) -> None:
    service = settings_in(UNITS[unit])["Service"]
    assert service["User"] == "atom-sync"
    assert service["StateDirectory"] == "atom-sync"
    assert service["LoadCredential"].startswith("atom-saas-token:")
    assert service["Environment"] == "ATOM_SAAS_API_TOKEN_FILE=%d/atom-saas-token PYTHONSAFEPATH=1"  # nothing secret
    assert service["SetCredential"] == r"atom-saas-token:\n"  # so that we report a missing file
    assert service["ProtectSystem"] == "strict"
    assert "143" in service["SuccessExitStatus"].split()


HARDENING = {
    **dict.fromkeys(("CapabilityBoundingSet", "AmbientCapabilities"), ""),
    **dict.fromkeys(("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "PrivateUsers", "ProtectHome"), "yes"),
    **dict.fromkeys(("ProtectClock", "ProtectHostname", "ProtectKernelTunables", "ProtectKernelModules"), "yes"),
    **dict.fromkeys(("ProtectKernelLogs", "ProtectControlGroups", "RestrictNamespaces", "RestrictRealtime"), "yes"),
    **dict.fromkeys(("RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute", "RemoveIPC"), "yes"),
    "UMask": "0077",
    "ProtectSystem": "strict",
    "ProtectProc": "invisible",
    "SystemCallArchitectures": "native",
}


@pytest.mark.parametrize("unit", [*POLLS, *SERVICES])
def test_units_are_hardened(unit: str) -> None:
    service = settings_in(UNITS[unit])["Service"]
    assert {name: service.get(name) for name in HARDENING} == HARDENING
    assert {"SystemCallFilter=@system-service", "SystemCallFilter=~@privileged"} <= {
        line.removesuffix(" @resources") for line in UNITS[unit].splitlines()
    }
    assert service["RestrictAddressFamilies"] in {"AF_UNIX", "AF_UNIX AF_INET AF_INET6"}


@pytest.mark.parametrize("unit", [*POLLS, *SERVICES])
def test_a_unit_neither_imports_from_the_shared_directory_nor_leaves_a_core(unit: str) -> None:
    service = settings_in(UNITS[unit])["Service"]
    assert service["WorkingDirectory"] == "/"
    assert service["LimitCORE"] == "0"
    assert 256 <= int(service["MemoryMax"].removesuffix("M")) <= 512


@pytest.mark.parametrize("unit", POLLS)
def test_a_poll_cannot_hang_forever(unit: str) -> None:
    parsed = settings_in(UNITS[unit])
    assert parsed["Service"]["Type"] == "oneshot"
    assert "RemainAfterExit" not in parsed["Service"]
    assert re.fullmatch(r"\d+min", parsed["Service"]["TimeoutStartSec"])
    assert parsed["Unit"]["OnFailure"] == "atom-sync-failed@%N.service"
    assert "--scheduled" in parsed["Service"]["ExecStart"]


@pytest.mark.parametrize("unit", POLLS)
def test_a_poll_that_was_stopped_or_locked_out_has_not_failed(unit: str) -> None:
    # SIGTERM: before the program has set its handlers up.
    assert settings_in(UNITS[unit])["Service"]["SuccessExitStatus"].split() == ["4", "75", "143", "SIGTERM"]


def test_probes_come_before_polls() -> None:
    niceness = {unit: int(settings_in(UNITS[unit])["Service"].get("Nice", "0")) for unit in (*POLLS, *SERVICES)}
    assert all(niceness[unit] > niceness["atom-sync-watch.service"] for unit in POLLS)
    assert niceness["atom-sync-health.service"] < niceness["atom-sync-watch.service"]


def test_a_second_watch_waits_for_the_first() -> None:
    watch = settings_in(UNITS["atom-sync-watch.service"])["Service"]
    assert watch["SuccessExitStatus"].split() == ["75", "143"]
    assert watch["RestartForceExitStatus"] == "75"


def test_only_the_service_that_starts_syncs_may_set_priorities() -> None:
    for unit in (*POLLS, *SERVICES):
        assert ("@resources" in UNITS[unit]) is (unit != "atom-sync-health.service")


def test_the_backend_gets_at_the_database_and_at_nothing_else() -> None:
    rights = {
        line.split()[1]: line.split()[2:]
        for line in UNITS["tmpfiles.d/atom-sync.conf"].splitlines()
        if "/" in line and line[0] != "#"
    }
    assert rights["/var/lib/atom-sync"] == ["2770", "atom-sync", "atom-sync"]
    assert (
        rights["/var/lib/atom-sync/atom.db"]
        == rights["/var/lib/atom-sync/atom.db-*"]
        == ["0660", "atom-sync", "atom-sync"]
    )
    for private in ("token", "atom-sync.env", "digest-key"):
        assert rights[f"/etc/atom-sync/{private}"] == ["0600", "atom-sync", "atom-sync"]
    for unit in (*POLLS, *SERVICES):  # systemd sets the rights of the directory at each start
        assert settings_in(UNITS[unit])["Service"]["StateDirectoryMode"] == rights["/var/lib/atom-sync"][0]


def test_paths_come_from_the_settings(machine: Machine, tmp_path: Path) -> None:
    settings = tmp_path / "own.env"
    settings.write_text("ATOM_SAAS_SYNC_INTERVAL_MINUTES=10\n", encoding="utf-8")
    shown = machine.command("--env-file", str(settings), "schedule", "systemd", "--json")
    texts = {Path(file["path"]).name: file["text"] for file in json.loads(shown.stdout)["files"]}
    service = settings_in(texts["atom-sync-skills.service"])["Service"]
    assert f" --env-file {settings} sync skills" in service["ExecStart"]
    if isinstance(machine.database, FileDatabase):
        assert service["ReadWritePaths"].split()[-1] == f"-{machine.database.path.parent}"
    assert settings_in(texts["atom-sync-skills.timer"])["Timer"]["OnCalendar"] == "*:0/10"
    assert f" --env-file {settings} " in machine.command("--env-file", str(settings), "schedule", "cron").stdout
    root = tmp_path / "root"
    assert (
        machine.command("--env-file", str(settings), "schedule", "cron", "--install", "--root", str(root)).returncode
        == 0
    )
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["atom-sync"]  # the user already has a file


@pytest.mark.parametrize(
    "path", ["/opt/my programs/atom-sync", "/opt/100%/atom-sync", "relative", "/a\nb", '/a"', "/$HOME"]
)
def test_paths_that_systemd_or_cron_would_read_in_another_way_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="is not allowed in a unit"):
        schedule(executable=path)
    with pytest.raises(UsageError, match="is not allowed in a unit"):
        schedule(settings=path)
    with pytest.raises(UsageError, match="is not allowed in a unit"):
        schedule(database=path)


def test_watch_is_restarted_when_it_hangs_but_not_when_the_token_is_refused() -> None:
    watch = settings_in(UNITS["atom-sync-watch.service"])["Service"]
    assert (watch["Type"], watch["NotifyAccess"]) == ("notify", "main")
    assert int(watch["WatchdogSec"]) > 0
    assert watch["Restart"] == "on-failure"
    assert watch["RestartPreventExitStatus"].split() == ["77", "78"]
    assert "RestartSteps" not in watch
    newer = settings_in(systemd_files(schedule(restart_steps=True))["atom-sync-watch.service"])["Service"]
    assert int(newer["RestartSteps"]) > 0


@pytest.mark.parametrize(
    ("minutes", "calendar"), [(5, "*:0/5"), (15, "*:0/15"), (30, "*:0/30"), (60, "hourly"), (120, "0/2:00")]
)
def test_even_intervals_follow_the_calendar_and_catch_up(minutes: int, calendar: str) -> None:
    for name, planned in (
        ("skills", schedule(skills_minutes=minutes)),
        ("ratings", schedule(ratings_minutes=minutes)),
    ):
        files = systemd_files(planned)
        timer = settings_in(files[f"atom-sync-{name}.timer"])["Timer"]
        assert timer["OnCalendar"] == calendar
        assert timer["Persistent"] == "yes"
        assert int(timer["RandomizedDelaySec"]) > 0
        assert f"--deadline {minutes * 60}" in files[f"atom-sync-{name}.service"]


@pytest.mark.parametrize("minutes", [7, 45, 50, 90, 100])
def test_other_intervals_count_from_the_last_run(minutes: int) -> None:
    timer = settings_in(systemd_files(schedule(skills_minutes=minutes))["atom-sync-skills.timer"])["Timer"]
    assert timer["OnUnitActiveSec"] == f"{minutes}min"
    # Without it the timer would never fire after a restart.
    assert timer["OnBootSec"]
    assert "OnCalendar" not in timer


@pytest.mark.parametrize(
    ("minutes", "times"),
    [
        *((7, "0-59/1 * * * *"), (25, "3-59/5 * * * *"), (40, "3-59/20 * * * *"), (50, "3-59/10 * * * *")),
        *((5, "3-59/5 * * * *"), (15, "3-59/15 * * * *"), (60, "3 * * * *")),
    ],
)
def test_cron_starts_a_job_often_enough_for_any_interval(minutes: int, times: str) -> None:
    assert f"\n{times}  atom-sync" in crontab(schedule(skills_minutes=minutes))


@pytest.mark.parametrize(
    ("minutes", "times"), [(90, "11-59/30 * * * *"), (100, "11-59/20 * * * *"), (120, "11 */2 * * *")]
)
def test_cron_starts_ratings_often_enough(minutes: int, times: str) -> None:
    assert f"\n{times}  atom-sync" in crontab(schedule(ratings_minutes=minutes))


@pytest.mark.parametrize("minutes", range(5, 121))
def test_a_job_that_cron_starts_late_once_is_due_the_next_time(minutes: int) -> None:
    delay = max(int(most) for most in re.findall(r"shuf -i 0-(\d+)", crontab(schedule(skills_minutes=minutes))))
    started = datetime(2026, 2, 19, 12, 0, tzinfo=UTC) + timedelta(seconds=min(delay, 6 * minutes - 10))
    every = timedelta(minutes=minutes)
    assert scheduled_run_is_due(started, every, datetime(2026, 2, 19, 12, 0, tzinfo=UTC) + every)
    assert not scheduled_run_is_due(started, every, started + every * 0.89)
    assert scheduled_run_is_due(started + every, every, started), "the clock was set back"


@pytest.mark.parametrize(("seconds", "fresh"), [(0, True), (449, True), (450, False), (-60, True), (-61, False)])
def test_what_another_host_has_done_is_fresh_though_the_clocks_differ(seconds: int, fresh: bool) -> None:
    now = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
    assert is_fresh(now - timedelta(seconds=seconds), timedelta(minutes=15), now) is fresh


@pytest.mark.sqlite("on a server a run by hand counts, too: tests/test_fleet.py")
def test_a_scheduled_run_that_is_not_due_does_nothing(machine: Machine) -> None:
    def scheduled(*words: str, **variables: str) -> Any:
        result = machine.command("sync", *words, "--scheduled", "--json", ENABLE_SCHEDULER="true", **variables)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    machine.command("sync", "skills")  # a manual run is not scheduled
    assert scheduled("skills", ATOM_SAAS_SYNC_INTERVAL_MINUTES="40")["status"] == "success"
    requests = machine.sandbox.counters()["requests"]
    skipped = scheduled("skills", ATOM_SAAS_SYNC_INTERVAL_MINUTES="40")
    assert (skipped["status"], skipped["reasons"], skipped["success"]) == ("skipped", ["not_due"], True)
    assert machine.sandbox.counters()["requests"] == requests
    quiet = machine.command("--log-level", "warning", "sync", "skills", "--scheduled", ENABLE_SCHEDULER="true")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert machine.command("sync", "skills").returncode == 0, "a person's run always runs"
    assert scheduled("ratings")["status"] == "success", "each kind has an interval of its own"
    assert scheduled("all")["ratings"]["status"] == "skipped"
    machine.sql(
        "UPDATE sync_run SET started_at = strftime('%Y-%m-%dT%H:%M:%SZ', started_at, '-37 minutes')",
        on_server="UPDATE sync_run SET started_at = started_at - interval '37 minutes'",
    )
    assert scheduled("skills", ATOM_SAAS_SYNC_INTERVAL_MINUTES="40")["status"] == "success"


@pytest.mark.parametrize("skills", [5, 6, 10, 12, 15, 20, 30, 60])
@pytest.mark.parametrize("ratings", [10, 30, 60, 120])
def test_the_crontab_is_one_that_cron_takes(skills: int, ratings: int) -> None:
    text = crontab(schedule(skills_minutes=skills, ratings_minutes=ratings))
    assert text.endswith("\n")
    lines = [
        line for line in text.splitlines() if line and not line.startswith("#") and not re.match(r"[A-Z_]+=", line)
    ]
    assert len(lines) == 4
    for line, minutes in zip(lines, (skills, ratings, 24 * 60, 24 * 60), strict=True):
        minute, hour, *rest = line.split()[:5]
        assert rest == ["*", "*", "*"]
        assert line.split()[5] == "atom-sync"
        assert "%" not in line  # cron takes it for a line break
        assert "nice timeout -k 60 " in line  # nothing else ends a hanging process
        assert runs_a_day(minute, hour) == 24 * 60 // minutes


def runs_a_day(minute: str, hour: str) -> int:
    def number(field: str, size: int) -> int:
        if field == "*":
            return size
        if field.isdigit():
            return 1
        span, _, step = field.partition("/")
        first, last = (0, size - 1) if span == "*" else map(int, span.split("-"))
        return len(range(first, last + 1, int(step)))

    return number(minute, 60) * number(hour, 24)


# The command


@pytest.mark.parametrize(("kind", "number"), [("systemd", 13), ("cron", 1)])
def test_it_shows_before_it_writes(machine: Machine, kind: str, number: int) -> None:
    result = machine.command("schedule", kind)
    assert result.returncode == 0
    assert result.stdout.count(MARK) == number
    document = json.loads(machine.command("schedule", kind, "--json").stdout)
    assert document["total"] == number
    assert all(file["text"].startswith(MARK) for file in document["files"])
    assert machine.sandbox.token not in result.stdout


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_install_writes_what_is_configured_and_uninstall_removes_just_that(
    machine: Machine, tmp_path: Path, kind: str
) -> None:
    root = tmp_path / "root"
    environment = {"ATOM_SAAS_SYNC_INTERVAL_MINUTES": "20", "ATOM_SYNC_ADMIN_TOKEN": "very-secret-indeed"}

    def run(*options: str) -> tuple[int, str]:
        result = machine.command("schedule", kind, "--root", str(root), *options, **environment)
        return result.returncode, result.stdout + result.stderr

    assert run("--install")[0] == 0
    files = {path for path in root.rglob("*") if path.is_file()}
    settings = root / "etc/atom-sync/atom-sync.env"
    assert settings in files
    assert stat.S_IMODE(settings.stat().st_mode) == 0o640
    text = settings.read_text(encoding="utf-8")
    assert "ATOM_SAAS_SYNC_INTERVAL_MINUTES=20" in text.splitlines()
    assert "ENABLE_SCHEDULER=true" in text.splitlines()
    everything = "".join(path.read_text(encoding="utf-8") for path in files)
    assert "very-secret" not in everything
    assert machine.sandbox.token not in everything
    assert "/20" in everything
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in files - {settings})

    # Again: nothing changes, and the user's settings stay.
    settings.write_text("ENABLE_SCHEDULER=false\n", encoding="utf-8")
    code, said = run("--install")
    assert (code, "nothing to do" in said) == (0, True)
    assert settings.read_text(encoding="utf-8") == "ENABLE_SCHEDULER=false\n"

    own = (files - {settings}).copy().pop().parent / "own.conf"
    own.write_text("mine", encoding="utf-8")
    assert run("--uninstall")[0] == 0
    assert {path for path in root.rglob("*") if path.is_file()} == {settings, own}
    assert run("--uninstall")[0] == 0


def test_services_will_read_the_settings_in_force_now(machine: Machine, tmp_path: Path) -> None:
    odd = {"ATOM_INSTANCE_ID": "it's \\ 'odd' # $HOME = \"x\" ${A}", "ATOM_SAAS_CONFLICT_STRATEGY": "merge"}
    query = {"ATOM_SAAS_WS_URL": "wss://ws.example.com/x?key=very-secret"}
    installed = machine.command("schedule", "systemd", "--install", "--root", str(tmp_path / "root"), **odd, **query)
    assert installed.returncode == 0
    written = tmp_path / "root/etc/atom-sync/atom-sync.env"
    assert "very-secret" not in written.read_text(encoding="utf-8")
    assert "# ATOM_SAAS_WS_URL: " in written.read_text(encoding="utf-8")
    read = load_settings({"ATOM_SAAS_API_TOKEN": "at_saas_x"}, env_file=written, working_directory=tmp_path)
    assert read.instance_id == odd["ATOM_INSTANCE_ID"]
    assert read.conflict_strategy == "merge"
    assert read.api_url == machine.sandbox.url
    assert read.database == machine.database.location
    assert read.scheduler_enabled


@pytest.mark.parametrize("option", ["--install", "--uninstall"])
def test_files_of_other_programs_are_left_alone(machine: Machine, tmp_path: Path, option: str) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    mine = units / TIMERS[-1]
    mine.write_text("[Timer]\nOnCalendar=monthly\n", encoding="utf-8")
    result = machine.command("schedule", "systemd", option, "--root", str(tmp_path))
    assert result.returncode == 2
    assert str(mine) in result.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "etc" in path.parts] == [mine]


def test_installing_and_removing_at_once_is_refused(machine: Machine) -> None:
    result = machine.command("schedule", "systemd", "--install", "--uninstall")
    assert result.returncode == 2
    assert "exclude each other" in result.stderr


def test_a_scheduled_purge_obeys_the_switches(machine: Machine) -> None:
    machine.pull()
    before = len(machine.cached())
    machine.sql("UPDATE skill_base SET confirmed_at = '2020-01-01T00:00:00Z'")
    machine.sql("UPDATE http_validator SET checked_at = '2020-01-01T00:00:00Z'")

    def purge(**environment: str) -> str:
        result = machine.command("cache", "purge", "--scheduled", "--json", **environment)
        assert result.returncode == 0
        return str(json.loads(result.stdout)["reason"])

    assert purge(ENABLE_SCHEDULER="false") == "scheduler_off"
    assert machine.command("jobs", "stop").returncode == 0
    assert purge(ENABLE_SCHEDULER="true") == "stopped"
    assert len(machine.cached()) == before
    assert machine.command("jobs", "start").returncode == 0
    assert purge(ENABLE_SCHEDULER="true") == "stale_if_error"


def test_units_for_the_user_s_own_systemd(machine: Machine, tmp_path: Path) -> None:
    root, home = tmp_path / "root", machine.directory
    units = root / str(home).lstrip("/") / ".config/systemd/user"

    def run(*options: str, **variables: str) -> Any:
        environment = {"HOME": str(home), "ATOM_SAAS_DATABASE_URL": "", **variables}
        result = machine.command(
            "schedule", "systemd", "--user", "--root", str(root), *options, "--json", **environment
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    shown = {Path(each["path"]).name: each["text"] for each in run()["files"]}
    assert set(shown) == {*TIMERS, *(each.replace(".timer", ".service") for each in TIMERS), "atom-sync-watch.service"}
    for name, text in shown.items():
        unit = settings_in(text)
        if name.endswith(".service"):
            _, *words = shlex.split(unit["Service"]["ExecStart"])
            assert words[:2] == ["--env-file", "%h/.config/atom-sync/atom-sync.env"]
            assert words[2:4] == ["--database", "%h/.local/share/atom-sync/atom.db"]
            assert not {"User", "Group", "DynamicUser", "LoadCredential", "ProtectSystem"} & set(unit["Service"])
    assert settings_in(shown["atom-sync-watch.service"])["Install"]["WantedBy"] == "default.target"
    elsewhere = run(XDG_DATA_HOME="/srv/data")["files"][0]["text"]
    assert "--database /srv/data/atom-sync/atom.db sync skills" in elsewhere
    assert "%h/.local" in run(XDG_DATA_HOME="relative")["files"][0]["text"]

    installed = run("--install")
    settings = units.parent.parent / "atom-sync/atom-sync.env"
    assert {Path(each) for each in installed["installed"]} == {*units.iterdir(), settings}
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    written = settings.read_text(encoding="utf-8").splitlines()
    assert f"ATOM_SAAS_DATABASE_URL=sqlite:///{home}/.local/share/atom-sync/atom.db" in written
    assert f"ATOM_SAAS_API_TOKEN_FILE={home}/.config/atom-sync/token" in written
    assert any("systemctl --user enable --now atom-sync-skills.timer" in step for step in installed["next"])
    run("--uninstall")
    assert [path for path in root.rglob("*") if path.is_file()] == [settings]
    both = machine.command("--system", "schedule", "systemd", "--user")
    assert (both.returncode, "exclude" in both.stderr) == (2, True)


def test_a_scheduled_backup_obeys_the_switches(machine: Machine) -> None:
    machine.pull()

    def backup(**environment: str) -> Any:
        result = machine.command("db", "backup", "--keep", "7", "--scheduled", "--json", **environment)
        assert result.returncode == 0
        return json.loads(result.stdout)

    assert backup(ENABLE_SCHEDULER="false")["reason"] == "scheduler_off"
    assert machine.command("jobs", "stop").returncode == 0
    assert backup(ENABLE_SCHEDULER="true")["backup"] is None
    assert not (machine.directory / "backups").exists()
    assert machine.command("jobs", "start").returncode == 0
    assert Path(backup(ENABLE_SCHEDULER="true")["backup"]).exists()
    assert machine.sql("SELECT started_by FROM sync_run WHERE kind = 'backup'") == [("timer",)]


@pytest.mark.parametrize("place", ["/home/me", "/root", "/tmp/x", "/var/tmp", "/run/user/0"])
def test_paths_hidden_from_the_units_cause_a_warning(machine: Machine, place: str) -> None:
    hidden = machine.command("schedule", "systemd", ATOM_SAAS_DATABASE_URL=f"{place}/atom.db")
    assert hidden.returncode == 0
    assert f"services cannot see the database {place}/atom.db" in hidden.stderr
    with tempfile.NamedTemporaryFile(dir="/tmp") as settings:  # the tests' own directory may be elsewhere
        seen = machine.command(
            "--env-file", settings.name, "schedule", "systemd", "--json", ATOM_SAAS_DATABASE_URL="/srv/a.db"
        )
    assert "the database" not in seen.stderr
    assert f"services cannot see the settings {settings.name}" in seen.stderr
    assert json.loads(seen.stdout)["success"]


def test_files_of_the_gate_hidden_from_the_units_cause_a_warning(machine: Machine) -> None:
    named = {"POLICY": "policy", "LOCK": "lock file", "REVOCATIONS": "revocations file"}
    files = {f"ATOM_SYNC_{name}_FILE": f"/root/{name}" for name in named}
    seen = machine.command("schedule", "systemd", ATOM_SAAS_DATABASE_URL="/srv/a.db", **files)
    assert [name for name, what in named.items() if f"cannot see the {what} /root/{name}" not in seen.stderr] == []


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_services_get_no_settings_from_a_found_file(machine: Machine, tmp_path: Path, kind: str) -> None:
    found = machine.directory / ".env"
    found.write_text("ATOM_SYNC_HISTORY_VERSIONS=0\nATOM_SAAS_SYNC_INTERVAL_MINUTES=20\n", encoding="utf-8")
    install = ("schedule", kind, "--install", "--root")
    installed = machine.command(*install, str(tmp_path / "a"), ATOM_SAAS_CONFLICT_STRATEGY="merge")
    assert installed.returncode == 0
    assert "the .env of this directory is not used" in installed.stderr
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    written = "".join(path.read_text(encoding="utf-8") for path in files)
    assert "HISTORY_VERSIONS" not in written and "/20" not in written
    settings = (tmp_path / "a/etc/atom-sync/atom-sync.env").read_text(encoding="utf-8").splitlines()
    assert "ATOM_SAAS_CONFLICT_STRATEGY=merge" in settings
    told = [line.strip() for line in installed.stdout.splitlines()]
    assert [line for line in settings if line not in told] == []

    found.chmod(0o666)  # not looked at either
    document = json.loads(machine.command(*install, str(tmp_path / "b"), "--json").stdout)
    assert f"ATOM_SAAS_API_URL={machine.sandbox.url}" in document["settings"]


def test_steps_that_config_init_has_done_are_left_out(machine: Machine) -> None:
    command = ("schedule", "systemd", "--install", "--root", "image", "--json")
    assert "token" in json.loads(machine.command(*command).stdout)["next"][1]
    (machine.directory / "image" / "etc" / "atom-sync" / "token").touch()
    assert not [step for step in json.loads(machine.command(*command).stdout)["next"] if "token" in step]


SERVER = "postgresql://atom_sync:very-secret@db.example/atom?sslmode=verify-full&sslrootcert=/etc/atom-sync/ca.pem"


def test_jobs_on_a_server_reach_it_and_get_its_password(machine: Machine, tmp_path: Path) -> None:
    root = tmp_path / "root"
    variables = {"ATOM_SAAS_DATABASE_URL": SERVER, "HOME": str(tmp_path)}
    installed = machine.command("schedule", "systemd", "--install", "--root", str(root), **variables)
    assert installed.returncode == 0, installed.stderr
    assert "install -m 600 -o atom-sync /dev/stdin /etc/atom-sync/database-password" in installed.stdout
    for unit in (*POLLS, *SERVICES):
        text = (root / "etc/systemd/system" / unit).read_text(encoding="utf-8")
        assert "AF_INET" in text, unit  # also those that need no network with a file
        assert "PrivateNetwork" not in text, unit
        assert "LoadCredential=atom-sync-database-password:/etc/atom-sync/database-password\n" in text, unit
    assert " watch --wait\n" in (root / "etc/systemd/system/atom-sync-watch.service").read_text(encoding="utf-8")
    settings = (root / "etc/atom-sync/atom-sync.env").read_text(encoding="utf-8")
    # The file may be copied to the next host, which has a name of its own.
    assert "ATOM_SYNC_HOST" not in settings
    everything = "".join(path.read_text(encoding="utf-8") for path in root.rglob("*") if path.is_file())
    assert "very-secret" not in everything + installed.stdout
    (password := tmp_path / "password").write_text("very-secret\n", encoding="utf-8")
    password.chmod(0o600)
    written = tmp_path / "atom-sync.env"
    written.write_text(settings.replace("/etc/atom-sync/database-password", str(password)), encoding="utf-8")
    read = load_settings({"ATOM_SAAS_API_TOKEN": "at_saas_x"}, env_file=written, working_directory=tmp_path).database
    assert isinstance(read, ServerAddress)
    assert (str(read), read.password) == (SERVER.replace(":very-secret", ""), "very-secret")


def test_units_of_the_user_name_no_file_for_a_database_on_a_server(machine: Machine) -> None:
    shown = machine.command("schedule", "systemd", "--user", ATOM_SAAS_DATABASE_URL=SERVER)
    assert shown.returncode == 0, shown.stderr
    assert "--database" not in shown.stdout
    assert "\nEnvironment=STATE_DIRECTORY=%h/.local/share/atom-sync\n" in shown.stdout
    assert " watch --wait\n" in shown.stdout
