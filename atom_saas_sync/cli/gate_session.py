"""Compose the gate's adapters from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from atom_saas_sync.cli.output import GlobalOptions
    from atom_saas_sync.config import Settings
    from atom_saas_sync.usecases.gate.current import CurrentGate
    from atom_saas_sync.usecases.gate.desk import GateDesk
    from atom_saas_sync.usecases.ports import Store


def gate_desk(
    settings: Settings, store: Store, *, for_user: bool, check: Callable[[], None] = lambda: None
) -> GateDesk:
    """Compose what judging and users' decisions need.

    `for_user`: a user's shell may lack the service's settings of files; then their last valid content stays.
    """
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.config.gate import SettingsFiles, policy_of, require_scanner
    from atom_saas_sync.usecases.gate.desk import GateDesk
    from atom_saas_sync.usecases.gate.loading import LoadedGate, load_gate

    gate_store = store.gate(history_versions=settings.history_versions, signer=runtime.signer_of(settings))
    policy, files, environment = policy_of(settings), SettingsFiles(settings), runtime.environment_for_others()

    def load() -> LoadedGate:
        require_scanner(policy.scan_command, environment)
        return load_gate(policy, files, gate_store, for_user=for_user)

    scanner = None
    if policy.scan_command:
        from atom_saas_sync.scanner import CommandScanner

        scanner = CommandScanner(policy.scan_command, environment)
    return GateDesk(gate_store, load, settings.conflict_strategy, scanner, check)


def current_gate(
    settings: Settings, store: Store, *, check: Callable[[], None] = lambda: None
) -> tuple[GateDesk, CurrentGate]:
    """Compose what a long-running process needs: the desk, and the gate that follows files and database."""
    from atom_saas_sync.config.gate import SettingsFiles
    from atom_saas_sync.usecases.gate.current import CurrentGate

    desk = gate_desk(settings, store, for_user=False, check=check)
    return desk, CurrentGate(desk, SettingsFiles(settings))


@contextmanager
def open_desk(options: GlobalOptions) -> Iterator[GateDesk]:
    """Open the database, and compose what a command about the gate needs."""
    with open_desk_and_resolve(options, "", lambda _store, given: given) as (desk, _):
        yield desk


@contextmanager
def open_desk_and_resolve(
    options: GlobalOptions, given: str, whole: Callable[[Store, str], str]
) -> Iterator[tuple[GateDesk, str]]:
    """Do the same for a read-only command; also return the full id of `given`. Raises Ambiguous."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    settings = runtime.load(options)
    with open_store(settings.database, create=False) as store:
        yield gate_desk(settings, store, for_user=True), whole(store, given)
