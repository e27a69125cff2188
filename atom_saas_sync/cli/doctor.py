"""`doctor`: diagnose problems and suggest fixes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import GlobalOptions, console, counted, note, print_json
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.diagnosis.findings import DoctorFinding, Timers
    from atom_saas_sync.model import Status
    from atom_saas_sync.model.server import ServerFacts
    from atom_saas_sync.systemd import Unit

_MARKS = {"ok": ("●", "green"), "warning": ("!", "yellow"), "problem": ("✕", "red"), "skipped": ("-", "dim")}


@paged
def doctor(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Diagnose problems and suggest fixes."""
    from atom_saas_sync.core.diagnosis.findings import DoctorFinding, exit_code

    try:
        findings = _examine(ctx.obj)
    except ConfigError as error:
        hint = "correct it; `atom-sync config show` prints the origin of each value"
        findings = [DoctorFinding("configuration", "problem", line, hint) for line in error.message.splitlines()]
    if as_json:
        print_json(
            {
                "success": not exit_code(findings),
                "findings": [
                    {
                        "check": each.check,
                        "verdict": each.verdict,
                        "message": each.message,
                        "hint": each.hint,
                        "reason": each.reason,
                    }
                    for each in findings
                ],
                "total": len(findings),
            }
        )
    else:
        _print(findings)
    raise typer.Exit(exit_code(findings))


def _examine(options: GlobalOptions) -> list[DoctorFinding]:
    from contextlib import closing

    from atom_saas_sync.cli.runtime import RunClock, name_host, set_up_logging_for, settings_of
    from atom_saas_sync.config import require_agreement
    from atom_saas_sync.core.diagnosis.findings import DoctorSettings
    from atom_saas_sync.core.tokens import expires_at
    from atom_saas_sync.marketplace.dialects import DIALECTS
    from atom_saas_sync.marketplace.probe import Probe
    from atom_saas_sync.usecases.diagnose import diagnose

    settings = settings_of(options)
    set_up_logging_for(settings, options)
    require_agreement(settings)
    name_host(settings, options)
    token = settings.api_token.reveal() if settings.api_token else ""
    network = Probe(
        api_url=settings.api_url,
        ws_url=settings.ws_url,
        token=token,
        instance_id=settings.instance_id,
        dialect=DIALECTS[settings.dialect],
        timeout_seconds=settings.timeout_seconds,
        ca_file=settings.ca_file,
        take=lambda: _take_request(settings),
        now=_now,
    )
    plan = DoctorSettings(
        enabled=settings.enabled,
        has_token=bool(token),
        token_expires_at=expires_at(token),
        api_url=settings.api_url,
        connections=settings.connections,
        ws_enabled=settings.ws_enabled,
        scheduler_enabled=settings.scheduler_enabled,
        conflict_strategy=settings.conflict_strategy,
        sync_interval_minutes=settings.sync_interval_minutes,
        min_free_disk_gb=settings.min_free_disk_gb,
        warnings=settings.warnings,
        policy_problems=_policy_problems(settings),
    )
    stop = RunClock()
    with closing(network), stop.caught(), stop.cutting(network.stop):
        return diagnose(plan, network=network, store=_Store(settings), host=_Host(), now=_now())


def _policy_problems(settings: Settings) -> tuple[str, ...]:
    from atom_saas_sync.cli.policy import read_policy

    try:
        read_policy(settings)
    except ConfigError as error:
        return tuple(error.message.splitlines())
    return ()


def _now() -> datetime:
    return datetime.now(UTC)


def _take_request(settings: Settings) -> float:
    """Take a request from the shared budget, unless the database is missing, damaged, outdated or a standby."""
    from atom_saas_sync.cli.session import budget_of

    try:
        if _Store(settings).read().migrations_pending:
            return 0.0
        with budget_of(settings) as budget:
            return budget.take(_now())
    except (ConfigError, DatabaseError):
        return 0.0  # a finding of its own


class _Store:
    def __init__(self, settings: Settings) -> None:
        from atom_saas_sync.store import engine_at

        self._settings = settings
        self._engine = engine_at(settings.database)

    def read(self) -> Status:
        settings = self._settings
        return self._engine.status(
            _now(),
            per_minute=settings.rate_limit_per_minute,
            per_hour=settings.rate_limit_per_hour,
            admission=settings.admission,
            admission_scope=settings.admission_scope,
        )

    def integrity(self) -> tuple[int, int]:
        from atom_saas_sync.cli.runtime import signer_of

        with self._engine.open(migrate=False, read_only=True) as store:
            return store.maintenance().tampered_and_unsigned(signer_of(self._settings))

    def try_writing(self) -> None:
        with self._engine.open(migrate=False, create=False) as store:
            store.maintenance().try_writing()

    def skill_ids(self) -> list[str]:
        with self._engine.open(migrate=False, read_only=True) as store:
            return store.ids().cached()

    def free_disk_gb(self) -> float | None:
        return self._engine.free_disk_gb()

    def server_facts(self) -> ServerFacts | None:
        return self._engine.server_facts()


class _Host:
    def timers(self) -> Timers:
        """Query systemd, if it is running, and look for our crontab."""
        from atom_saas_sync.core.diagnosis.findings import Timers
        from atom_saas_sync.core.schedule_files import CRONTAB

        units = _systemd_units()
        active = [unit.name for unit in units if unit.state == "active" and unit.name.endswith(".timer")]
        failed = [unit.name for unit in units if unit.state == "failed"]
        if Path(CRONTAB).exists():
            active.append(CRONTAB)
        return Timers(tuple(active), tuple(failed), own=any(unit.own for unit in units))


def _systemd_units() -> list[Unit]:
    from atom_saas_sync.systemd import units

    try:
        return units()
    except AtomSyncError as error:
        note(f"could not query systemd's units: {printable(error.message)}")
        return []


def _print(findings: list[DoctorFinding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for each in findings:
        mark, style = _MARKS[each.verdict]
        words = Text(printable(each.message))
        if each.hint:
            words.append(f"\n→ {printable(each.hint)}", "dim")
        table.add_row(Text(mark, style), Text(each.check, "bold"), words)
    out = console(whole_lines=True)
    out.print(table)
    problems = sum(each.verdict == "problem" for each in findings)
    warnings = sum(each.verdict == "warning" for each in findings)
    out.print(f"\n{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
