"""The texts of units for a user's own systemd (`systemctl --user`).

They run as that user, so they have no user, group or credential, and only the hardening that needs no privileges: a
user's manager cannot create namespaces or drop capabilities.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from atom_saas_sync.core.backups import BACKUPS_KEPT
from atom_saas_sync.core.schedule_files import MARK, Schedule, daily_timer, poll_timer, watch_command

SERVICES = ("atom-sync-watch.service",)

DIRECTORY = ".config/systemd/user"
"""The directory of the units, below the home directory."""

SETTINGS = ".config/atom-sync/atom-sync.env"
TOKEN_FILE = ".config/atom-sync/token"  # noqa: S105 - where it is, not what it is
PASSWORD_FILE = ".config/atom-sync/database-password"  # noqa: S105 - where it is, not what it is
DATABASE = ".local/share/atom-sync/atom.db"

_MARK = f"{MARK} systemd --user --install`, which replaces it; put your own changes in drop-ins.\n"

_HARDENING = """
UMask=0077
NoNewPrivileges=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
# A core dump would contain the token.
LimitCORE=0
""".strip()

_MEMORY = "# More than the largest allowed responses can make it use (docs/SECURITY.md).\nMemoryMax={}"


def user_units(schedule: Schedule) -> dict[str, str]:
    """Return the units by their names. Paths of `schedule` may begin with %h, the home directory."""
    skills, ratings = schedule.skills_minutes, schedule.ratings_minutes
    files = {
        "atom-sync-skills.service": _job(schedule, "skills", "skills and categories", _poll("skills", skills), skills),
        "atom-sync-skills.timer": poll_timer("skills and categories", skills),
        "atom-sync-ratings.service": _job(schedule, "ratings", "ratings", _poll("ratings", ratings), ratings),
        "atom-sync-ratings.timer": poll_timer("ratings", ratings),
        "atom-sync-purge.service": _job(
            schedule, "purge", "remove expired entries", "cache purge --scheduled", minutes=8
        ),
        "atom-sync-purge.timer": daily_timer("remove expired entries", "03:30"),
        "atom-sync-backup.service": _job(
            schedule, "backup", "back the database up", f"db backup --keep {BACKUPS_KEPT} --scheduled", minutes=58
        ),
        "atom-sync-backup.timer": daily_timer("back the database up", "02:30"),
        "atom-sync-watch.service": _watch(schedule),
    }
    return {name: _MARK + text for name, text in files.items()}


def _poll(kind: str, minutes: int) -> str:
    return f"sync {kind} --scheduled --wait 60 --deadline {minutes * 60}"


def _command(schedule: Schedule) -> str:
    return schedule.command if schedule.on_server else f"{schedule.command} --database {schedule.database}"


def _state(schedule: Schedule) -> str:
    """Return the setting for where backups of a database on a server are kept."""
    return f"Environment=STATE_DIRECTORY={PurePosixPath(schedule.database).parent}\n" if schedule.on_server else ""


def _job(schedule: Schedule, kind: str, what: str, command: str, minutes: int) -> str:
    return f"""
[Unit]
Description=atom-sync: {what}

[Service]
Type=oneshot
ExecStart={_command(schedule)} {command}
Nice=10
# The program ends on its own; this is for one that hangs.
TimeoutStartSec={minutes + 2}min
SuccessExitStatus=4 75 143 SIGTERM
{_state(schedule)}SyslogIdentifier=atom-sync-{kind}
{_MEMORY.format("384M")}
{_HARDENING}
"""


def _watch(schedule: Schedule) -> str:
    backoff = "RestartSteps=6\nRestartMaxDelaySec=10min\n" if schedule.restart_steps else ""
    return f"""
[Unit]
Description=atom-sync: the marketplace's changes in real time
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={_command(schedule)} {watch_command(schedule)}
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
TimeoutStartSec=2min
TimeoutStopSec=30
WatchdogSec=60
Restart=on-failure
RestartSec=10
{backoff}# Retrying does not help against a refused token or an invalid configuration.
RestartPreventExitStatus=77 78
SuccessExitStatus=75 143
RestartForceExitStatus=75
{_state(schedule)}SyslogIdentifier=atom-sync-watch
{_MEMORY.format("512M")}
{_HARDENING}

[Install]
WantedBy=default.target
"""
