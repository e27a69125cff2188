"""The texts of the systemd units and the crontab that start the jobs.

The files in `systemd/` and `cron/` are these texts with the default settings. Facts behind the choices: a timer with
`OnCalendar=` catches up after a power cut; one that only has `OnUnitActiveSec=` never fires after a restart; a oneshot
without `TimeoutStartSec=` may hang for ever; units that share a state directory need one `User=`.
"""

from __future__ import annotations

import re
from math import gcd
from pathlib import PurePosixPath

from msgspec import Struct

from atom_saas_sync.core.backups import BACKUPS_KEPT
from atom_saas_sync.errors import UsageError
from atom_saas_sync.places import DATABASE_PASSWORD_FILE, DIGEST_KEY_FILE, SETTINGS, STATE_DIRECTORY, TOKEN_FILE

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9+,./:=@_~-]*")

MARK = "# Written by `atom-sync schedule"
"""The first words of files that we may replace and remove."""

CRONTAB = "/etc/cron.d/atom-sync"

METRICS_DIRECTORY = "/var/lib/atom-sync-metrics"
"""Readable by everyone, for node_exporter; the state directory is private."""

_DAY_MINUTES = 1440

SERVICES = ("atom-sync-watch.service", "atom-sync-health.service")
TIMERS = ("atom-sync-skills.timer", "atom-sync-ratings.timer", "atom-sync-purge.timer", "atom-sync-backup.timer")

_SYSTEMD_MARK = f"{MARK} systemd --install`, which replaces it; put your own changes in drop-ins.\n"
_CRON_MARK = f"{MARK} cron --install`, which replaces it.\n"

# With these, `systemd-analyze security` reports 1.4 or less.
_HARDENING = """
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
PrivateUsers=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
# A core dump would contain the token.
LimitCORE=0
""".strip()

# serve-health may set the priority of the syncs that it starts; the others need nothing from @resources.
_FEWER_CALLS = "SystemCallFilter=~@privileged @resources"
_FEWER_CALLS_BUT_NICE = "SystemCallFilter=~@privileged"
_NETWORK = "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
_ONLINE = "Wants=network-online.target\nAfter=network-online.target\n"
# Empty without the file: the password may also come from PGPASSFILE, or the server may need none.
_PASSWORD = f"""\
# The password for the database's server, likewise.
LoadCredential=atom-sync-database-password:{DATABASE_PASSWORD_FILE}
SetCredential=atom-sync-database-password:\\n
"""
_NO_NETWORK = "RestrictAddressFamilies=AF_UNIX\nPrivateNetwork=yes\nIPAddressDeny=any"


HOME = "%h"
"""The home directory, in the units of a user's systemd."""


class Schedule(Struct, frozen=True):
    """The parameters of the files: absolute paths (or below HOME), intervals, and features of this systemd.

    Raises UsageError for a path that systemd or cron would interpret differently because of %, $, quotes or spaces.
    """

    skills_minutes: int
    ratings_minutes: int
    executable: str = "/opt/atom-sync/venv/bin/atom-sync"
    settings: str = SETTINGS
    database: str = f"{STATE_DIRECTORY}/atom.db"
    restart_steps: bool = False
    """Whether systemd knows RestartSteps= (254 and later); older ones warn of unknown keys."""
    on_server: bool = False
    """Whether the database is on a server, which other hosts use as well."""

    def __post_init__(self) -> None:
        for path in (self.executable, self.settings, self.database):
            if not _PLAIN_PATH.fullmatch(path.removeprefix(HOME)):
                raise UsageError(
                    f"{path!r} is not allowed in a unit or a crontab: expected an absolute path of letters, digits and "
                    "+,-./:=@_~"
                )

    @property
    def command(self) -> str:
        """The command line of the program."""
        return f"{self.executable} --env-file {self.settings}"


def is_hidden(path: str) -> bool:
    """Tell whether the units' PrivateTmp and ProtectHome hide this absolute path from their services."""
    return path.startswith(tuple(f"/{each}/" for each in ("home", "root", "run/user", "tmp", "var/tmp")))


def systemd_files(schedule: Schedule) -> dict[str, str]:
    """Return the units and the files for sysusers and tmpfiles, by their path below `systemd/`."""
    files = {
        "atom-sync-skills.service": _poll(schedule, "skills", "skills and categories", schedule.skills_minutes),
        "atom-sync-skills.timer": poll_timer("skills and categories", schedule.skills_minutes),
        "atom-sync-ratings.service": _poll(schedule, "ratings", "ratings", schedule.ratings_minutes),
        "atom-sync-ratings.timer": poll_timer("ratings", schedule.ratings_minutes),
        "atom-sync-purge.service": _purge(schedule),
        "atom-sync-purge.timer": daily_timer("remove expired entries", "03:30"),
        "atom-sync-backup.service": _backup(schedule),
        "atom-sync-backup.timer": daily_timer("back the database up", "02:30"),
        "atom-sync-watch.service": _watch(schedule),
        "atom-sync-health.service": _health(schedule),
        "atom-sync-failed@.service": _FAILED,
        "sysusers.d/atom-sync.conf": _SYSUSERS,
        "tmpfiles.d/atom-sync.conf": _TMPFILES,
    }
    return {path: _SYSTEMD_MARK + text for path, text in files.items()}


def crontab(schedule: Schedule) -> str:
    """Return the file for /etc/cron.d."""
    program = schedule.executable
    metrics = f"--textfile {METRICS_DIRECTORY}/atom_sync.prom"
    skills = f"sync skills --scheduled --wait 60 --deadline {schedule.skills_minutes * 60} {metrics}"
    ratings = f"sync ratings --scheduled --wait 60 --deadline {schedule.ratings_minutes * 60} {metrics}"
    lines = [
        (_cron_times(schedule.skills_minutes, 3), schedule.skills_minutes, schedule.skills_minutes + 2, skills),
        (_cron_times(schedule.ratings_minutes, 11), schedule.ratings_minutes, schedule.ratings_minutes + 2, ratings),
        ("41 3 * * *", _DAY_MINUTES, 10, "cache purge --scheduled"),
        ("41 2 * * *", _DAY_MINUTES, 60, f"db backup --keep {BACKUPS_KEPT} --scheduled"),
    ]
    # What is printed on success goes nowhere; warnings and errors become mail to MAILTO. The delay keeps many machines
    # from asking at the same second. It is shorter than a tenth of the interval, or the next run would not be due. The
    # program ends on its own at its deadline; `timeout` is for one that hangs.
    jobs = "\n".join(
        f"{times}  atom-sync  cd / && umask 077 && ulimit -c 0 && test -x {program} && "
        f'sleep "$(shuf -i 0-{min(59, 6 * interval - 10)} -n 1)" && '
        f"nice timeout -k 60 {minutes * 60} {schedule.command} --log-level warning {command} >/dev/null"
        for times, interval, minutes, command in lines
    )
    return _CRON_MARK + _CRON_HEAD + jobs + "\n"


def _cron_times(minutes: int, offset: int) -> str:
    """Return the five time fields; `offset` avoids the full hour, when everybody's jobs start."""
    if 60 % minutes == 0:
        first = offset % minutes
        return f"{first}-59/{minutes} * * * *" if minutes < 60 else f"{offset} * * * *"  # noqa: PLR2004 - an hour
    if minutes % 60 == 0 and 24 % (minutes // 60) == 0:
        return f"{offset} */{minutes // 60} * * *"
    # More often than configured: `--scheduled` skips runs that are not due.
    return _cron_times(gcd(60, minutes), offset)


def _calendar(minutes: int) -> str | None:
    """Return the calendar expression for even steps, None if there is none."""
    if 60 % minutes == 0:
        return f"*:0/{minutes}" if minutes < 60 else "hourly"  # noqa: PLR2004 - an hour
    if minutes % 60 == 0 and 24 % (minutes // 60) == 0:
        return f"0/{minutes // 60}:00"
    return None


def poll_timer(what: str, minutes: int) -> str:
    """Return the timer of a job that runs every `minutes` minutes."""
    calendar = _calendar(minutes)
    if calendar is None:
        when = f"""\
# The calendar has no even steps of {minutes} minutes. OnBootSec fires at once where it is over already, so this needs
# no Persistent=.
OnBootSec=2min
OnUnitActiveSec={minutes}min
"""
    else:
        when = f"OnCalendar={calendar}\nPersistent=yes\n"
    return f"""
[Unit]
Description=atom-sync: {what}, every {minutes} minutes

[Timer]
{when}# Spread over the machines, at the same second of each interval on one of them.
RandomizedDelaySec=90
FixedRandomDelay=yes
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def daily_timer(what: str, time: str) -> str:
    """Return the timer of a job that runs once a day, at that time or up to half an hour later."""
    return f"""
[Unit]
Description=atom-sync: {what}, daily

[Timer]
OnCalendar=*-*-* {time}
Persistent=yes
RandomizedDelaySec=30min
FixedRandomDelay=yes
AccuracySec=1min

[Install]
WantedBy=timers.target
"""


def _poll(schedule: Schedule, kind: str, what: str, minutes: int) -> str:
    return f"""
[Unit]
Description=atom-sync: {what}
Wants=network-online.target
After=network-online.target
OnFailure=atom-sync-failed@%N.service

[Service]
Type=oneshot
ExecStart={schedule.command} sync {kind} --scheduled --wait 60 --deadline {minutes * 60} \\
    --textfile {METRICS_DIRECTORY}/atom_sync.prom
# Yield to whatever answers people and probes on this machine.
Nice=10
CPUWeight=20
# The program ends on its own when the interval is over; this is for one that hangs.
TimeoutStartSec={minutes + 2}min
# Needs a decision (4), try again later (75), stopped (143, or SIGTERM during start-up): `status` and the metrics
# report these; they are not failures of the unit.
SuccessExitStatus=4 75 143 SIGTERM
{_environment(schedule, f"atom-sync-{kind}", "384M")}
{_HARDENING}
{_FEWER_CALLS}
{_NETWORK}
"""


def _purge(schedule: Schedule) -> str:
    return _daily(schedule, "purge", "remove expired entries", "cache purge --scheduled", minutes=10)


def _backup(schedule: Schedule) -> str:
    command = f"db backup --keep {BACKUPS_KEPT} --scheduled"
    return _daily(schedule, "backup", "back the database up", command, minutes=60)


def _daily(schedule: Schedule, kind: str, what: str, command: str, *, minutes: int) -> str:
    return f"""
[Unit]
Description=atom-sync: {what}
{_ONLINE if schedule.on_server else ""}OnFailure=atom-sync-failed@%N.service

[Service]
Type=oneshot
ExecStart={schedule.command} {command}
Nice=10
CPUWeight=20
TimeoutStartSec={minutes}min
SuccessExitStatus=4 75 143 SIGTERM
{_environment(schedule, f"atom-sync-{kind}", "256M")}
{_HARDENING}
{_FEWER_CALLS}
{_NETWORK if schedule.on_server else _NO_NETWORK}
"""


def watch_command(schedule: Schedule) -> str:
    """Return the arguments of the service: on a server it stands by while the `watch` of another host works."""
    return "watch --wait" if schedule.on_server else "watch"


def _watch(schedule: Schedule) -> str:
    backoff = "RestartSteps=6\nRestartMaxDelaySec=10min\n" if schedule.restart_steps else ""
    return f"""
[Unit]
Description=atom-sync: the marketplace's changes in real time
Wants=network-online.target
After=network-online.target
# It runs for months, so it is restarted without a limit. The alerts WebSocketDisconnected and SyncStale tell people.
StartLimitIntervalSec=0
OnFailure=atom-sync-failed@%N.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={schedule.command} {watch_command(schedule)}
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
TimeoutStartSec=2min
TimeoutStopSec=30
# The loop that does the work sends the keep-alives, so a hanging one is restarted.
WatchdogSec=60
Restart=on-failure
RestartSec=10
{backoff}# Retrying does not help against a refused token or an invalid configuration.
RestartPreventExitStatus=77 78
# Not failures: another `watch` is running (75, which is waited for), or this one was stopped (143).
SuccessExitStatus=75 143
RestartForceExitStatus=75
{_environment(schedule, "atom-sync-watch")}
{_HARDENING}
{_FEWER_CALLS}
{_NETWORK}

[Install]
WantedBy=multi-user.target
"""


def _health(schedule: Schedule) -> str:
    return f"""
[Unit]
Description=atom-sync: health, metrics and the admin API over HTTP
After=network.target
StartLimitIntervalSec=0
OnFailure=atom-sync-failed@%N.service

[Service]
Type=exec
ExecStart={schedule.command} serve-health
# Answer probes at once, even while a sync keeps the processors busy.
Nice=-5
CPUWeight=500
TimeoutStopSec=30
Restart=on-failure
RestartSec=10
RestartPreventExitStatus=78
SuccessExitStatus=143
{_environment(schedule, "atom-sync-health")}
{_HARDENING}
{_FEWER_CALLS_BUT_NICE}
{_NETWORK}

[Install]
WantedBy=multi-user.target
"""


def _environment(schedule: Schedule, identifier: str, memory: str = "512M") -> str:
    directory = str(PurePosixPath(schedule.database).parent)
    elsewhere = "" if directory == STATE_DIRECTORY else f" -{directory}"
    return f"""\
User=atom-sync
Group=atom-sync
UMask=0077
# Members of the group atom-sync may use the database, as the Atom backend does. For that, they must be able to write
# to its directory, and new files must belong to the group.
StateDirectory=atom-sync
StateDirectoryMode=2770
# Not the state directory: the group may write there, and nothing may be imported or read from it as settings.
WorkingDirectory=/
ReadWritePaths=-{METRICS_DIRECTORY}{elsewhere}
# The token: a copy of the file, made when the unit starts and visible only to it. After a change: `systemctl restart`.
# Never put it in Environment=, which every user can read.
Environment=ATOM_SAAS_API_TOKEN_FILE=%d/atom-saas-token PYTHONSAFEPATH=1
# Encrypted at rest: `systemd-creds encrypt --name=atom-saas-token - /etc/atom-sync/token.cred`, and in a drop-in
# LoadCredential= and, on the next line, LoadCredentialEncrypted=atom-saas-token:/etc/atom-sync/token.cred.
LoadCredential=atom-saas-token:{TOKEN_FILE}
# An empty one where that file is missing: the program says so more clearly than systemd ("Protocol error").
SetCredential=atom-saas-token:\\n
# A key for the digests is named in the settings (ATOM_SYNC_DIGEST_KEY_FILE), or is a credential atom-sync-digest-key,
# from LoadCredential= or LoadCredentialEncrypted= in a drop-in of atom-sync-.service.
{_PASSWORD if schedule.on_server else ""}SyslogIdentifier={identifier}
# More than the largest allowed responses can make it use (docs/SECURITY.md).
MemoryMax={memory}
"""


_FAILED = f"""
[Unit]
Description=atom-sync: report the failure of %i

[Service]
# Logs one line with priority "error", possibly twice. For mail or a pager, write a unit of your own, and name it in
# OnFailure= in a drop-in of the job.
Type=oneshot
ExecStart=/bin/echo "<3>%i.service failed: ${{MONITOR_SERVICE_RESULT}}, exit status ${{MONITOR_EXIT_STATUS}}; \
`journalctl -u %i.service` says why, `atom-sync doctor` what to do"
TimeoutStartSec=1min
SyslogIdentifier=atom-sync-failed
DynamicUser=yes
UMask=0077

{_HARDENING}
{_FEWER_CALLS}
{_NO_NETWORK}
"""

_SYSUSERS = """
# One user for all units, and no DynamicUser=: they share the database, and with that the Atom backend could not get at
# it (systemd would put it below /var/lib/private, which is root's). To let the backend in:
# `usermod --append --groups atom-sync USER_OF_THE_BACKEND`, then `systemd-tmpfiles --create` as soon as there is a
# database.
u atom-sync - "atom-sync" /var/lib/atom-sync
"""

_TMPFILES = f"""
d /etc/atom-sync 0750 root atom-sync
# Not for the group: the Atom backend needs none of them.
z {SETTINGS} 0600 atom-sync atom-sync
z {TOKEN_FILE} 0600 atom-sync atom-sync
z {DIGEST_KEY_FILE} 0600 atom-sync atom-sync
z {DATABASE_PASSWORD_FILE} 0600 atom-sync atom-sync
d {STATE_DIRECTORY} 2770 atom-sync atom-sync
z {STATE_DIRECTORY}/atom.db 0660 atom-sync atom-sync
z {STATE_DIRECTORY}/atom.db-* 0660 atom-sync atom-sync
d {METRICS_DIRECTORY} 0755 atom-sync atom-sync
"""

_CRON_HEAD = """
# For machines without systemd: timers catch up after a power cut and spread their load better. Needs the user
# atom-sync, and files of that user's: the settings, ENABLE_SCHEDULER=true among them, and the token where
# ATOM_SAAS_API_TOKEN_FILE says. The program locks itself: a second run at a time exits with 75.
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PYTHONSAFEPATH=1
STATE_DIRECTORY=/var/lib/atom-sync
MAILTO=root

"""
