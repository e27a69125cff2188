"""The files that are shipped with the program, for `atom-sync files` and `config init`.

The units and the crontab are rendered. The others are read from the package, where setup.py puts them when it builds
the wheel; in a checkout they are read from its top directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from atom_saas_sync.config.variables import value_of
from atom_saas_sync.core.schedule_files import Schedule, crontab, systemd_files
from atom_saas_sync.errors import DatabaseError

_PACKAGE = Path(__file__).parent
ENV_EXAMPLE = "env/.env.example"

# The name, the path in a checkout, and the meaning.
_STORED = {
    ENV_EXAMPLE: (".env.example", "every setting with its default, as comments"),
    "monitoring/alerts/prometheus-alerts.yml": ("", "alert rules for Prometheus"),
    "monitoring/alerts/prometheus-alerts.test.yml": ("", "tests of the alert rules, for promtool"),
    "monitoring/grafana/sync-dashboard.json": ("", "dashboard for Grafana"),
    "monitoring/prometheus/prometheus.yml": ("", "scrape configuration: the HTTP endpoint"),
    "monitoring/prometheus/prometheus-textfile.yml": ("", "scrape configuration: node_exporter's textfile collector"),
}
_DESCRIPTION = re.compile(r"^Description=atom-sync: (.+)$", re.MULTILINE)
_WITHOUT_DESCRIPTION = {
    "sysusers.d/atom-sync.conf": "the user of the services",
    "tmpfiles.d/atom-sync.conf": "the directories of the services, their owners and modes",
}


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """One file: its relative target path, a short description, and its text."""

    name: str
    meaning: str
    text: str


def shipped_files() -> list[ShippedFile]:
    """Return all files except the manual pages, by name. Raises DatabaseError if one cannot be read."""
    schedule = Schedule(
        skills_minutes=value_of("ATOM_SAAS_SYNC_INTERVAL_MINUTES"),
        ratings_minutes=value_of("ATOM_SAAS_RATING_SYNC_INTERVAL_MINUTES"),
    )
    files = [ShippedFile(name, meaning, stored_text(name)) for name, (_, meaning) in _STORED.items()]
    files.append(
        ShippedFile("cron/atom-sync", "crontab for /etc/cron.d, with the default intervals", crontab(schedule))
    )
    for name, text in systemd_files(schedule).items():
        described = _DESCRIPTION.search(text)
        meaning = described[1] if described else _WITHOUT_DESCRIPTION.get(name, "")
        files.append(ShippedFile(f"systemd/{name}", meaning, text))
    return sorted(files, key=lambda file: file.name)


def stored_text(name: str) -> str:
    """Return the text of a file that is not rendered. Raises DatabaseError if it cannot be read."""
    installed = _PACKAGE / "files" / name
    path = installed if installed.exists() else _PACKAGE.parent / (_STORED[name][0] or name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DatabaseError(
            f"cannot read {path}: {error.strerror}", hint="install atom-sync again, from its wheel"
        ) from error
