"""Query systemd about our units; without systemd there are none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import ScheduledJob

_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_SECONDS = 5.0
# The names under which `watch --jobs` runs the same jobs.
_JOBS = {
    "atom-sync-skills.timer": ("skill-sync-atom-saas", "Skill Sync with Atom SaaS"),
    "atom-sync-ratings.timer": ("rating-sync-atom-saas", "Rating Sync with Atom SaaS"),
    "atom-sync-purge.timer": ("cache-purge-atom-saas", "Purge of Expired Entries"),
    "atom-sync-backup.timer": ("database-backup-atom-saas", "Backup of the Database"),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One of our units: its name, its state (active, inactive, failed …), and if the user's own systemd runs it."""

    name: str
    state: str
    own: bool = False


def ask_systemctl(*question: str) -> str | None:
    """Return the output of systemctl; None without systemd. Raises AtomSyncError."""
    return _ask(_BOOTED.is_dir(), question, {"LC_ALL": "C"})


def ask_own_systemctl(*question: str) -> str | None:
    """Return the output of `systemctl --user`; None if no user manager is running. Raises AtomSyncError."""
    runtime = Path(f"/run/user/{os.getuid()}")
    runs = (runtime / "systemd/private").exists()
    return _ask(runs, ("--user", *question), {"LC_ALL": "C", "XDG_RUNTIME_DIR": str(runtime)})


def _ask(there: bool, question: tuple[str, ...], environment: dict[str, str]) -> str | None:
    systemctl = shutil.which("systemctl")
    if systemctl is None or not there:
        return None
    shown = f"`systemctl {' '.join(question[: 1 + question[0].startswith('-')])}`"
    try:
        answer = subprocess.run(  # noqa: S603 - fixed commands
            [systemctl, *question], capture_output=True, text=True, timeout=_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise AtomSyncError(f"{shown} did not answer within {_SECONDS:.0f} s") from error
    except OSError as error:
        raise AtomSyncError(f"{shown} cannot be run: {error.strerror}") from error
    if answer.returncode != 0:
        raise AtomSyncError(f"{shown} failed: {' '.join(answer.stderr.split()) or answer.returncode}")
    return answer.stdout


def timers(
    ask: Callable[..., str | None] = ask_systemctl, ask_own: Callable[..., str | None] = ask_own_systemctl
) -> list[ScheduledJob]:
    """Return the jobs of systemd's timers, or those of the user's own systemd.

    `minutes` is None, as a calendar says when.

    Raises AtomSyncError if systemd is here and says nothing that can be read.
    """
    question = ("list-timers", "--all", "--output=json", "atom-sync*.timer")
    return _timers(ask(*question)) or _timers(ask_own(*question))


def _timers(text: str | None) -> list[ScheduledJob]:
    if text is None:
        return []
    try:
        listed = {timer["unit"]: _moment(timer.get("next")) for timer in json.loads(text)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AtomSyncError("`systemctl list-timers` did not print a list of timers") from error
    jobs = []
    for name in (*(each for each in _JOBS if each in listed), *sorted(listed.keys() - _JOBS)):
        id_, title = _JOBS.get(name, (name, name))
        jobs.append(ScheduledJob(id_, title, None, listed[name]))
    return jobs


def units(
    ask: Callable[..., str | None] = ask_systemctl, ask_own: Callable[..., str | None] = ask_own_systemctl
) -> list[Unit]:
    """Return our loaded units, or those of the user's own systemd. Raises AtomSyncError like `timers`."""
    question = ("list-units", "--all", "--plain", "--no-legend", "--no-pager", "atom-sync*")
    return _units(ask(*question), own=False) or _units(ask_own(*question), own=True)


def _units(text: str | None, *, own: bool) -> list[Unit]:
    # UNIT LOAD ACTIVE SUB DESCRIPTION
    lines = [line.split(None, 4) for line in (text or "").splitlines()]
    return [Unit(line[0], line[2], own) for line in lines if len(line) > 3]  # noqa: PLR2004 - the columns


def _moment(microseconds: object) -> datetime | None:
    """Return a time from systemd; None for 0 or an empty value, which mean that the timer is not planned."""
    if type(microseconds) is not int or microseconds <= 0:
        return None
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
