"""sync_state mirrors our audit trail for the Atom backend; values written by others are ignored."""

from __future__ import annotations

import json

from conftest import Machine

ROW = (
    "SELECT id, device_id, status, total_syncs, successful_syncs, pending_actions_count, "
    "last_sync = last_successful_sync_at FROM sync_state"
)


def test_a_deleted_row_comes_back_and_the_status_did_not_need_it(machine: Machine) -> None:
    machine.pull()
    machine.sql("DELETE FROM sync_state")
    assert machine.status().sync.last_successful_sync_at is not None
    machine.pull()
    assert machine.sql(ROW) == [("marketplace_sync", "marketplace_sync", "idle", 2, 2, 0, 1)]


def test_a_row_written_by_another_program_does_not_make_the_state_healthy(machine: Machine) -> None:
    machine.command("db", "upgrade")
    machine.sql(
        "UPDATE sync_state SET status = 'idle', last_successful_sync_at = current_timestamp, "
        "total_syncs = 9, successful_syncs = 9"
    )
    status = json.loads(machine.command("status", "--json").stdout)
    assert (status["sync"]["total_syncs"], status["sync"]["last_successful_sync_at"]) == (0, None)
    assert "never_synced" in status["health"]["reasons"]


def test_a_run_is_a_pending_action_while_it_lasts(machine: Machine) -> None:
    machine.pull()
    machine.sql(
        "CREATE TRIGGER seen AFTER UPDATE ON sync_state WHEN new.pending_actions_count = 1 "
        "BEGIN UPDATE sync_state SET user_id = new.status; END",
        on_server="CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN UPDATE sync_state SET user_id = NEW.status; RETURN NULL; END'; "
        "CREATE TRIGGER seen AFTER UPDATE ON sync_state FOR EACH ROW "
        "WHEN (NEW.pending_actions_count = 1 AND NEW.user_id IS NULL) EXECUTE FUNCTION seen()",
    )
    machine.pull()
    assert machine.sql("SELECT user_id, status, pending_actions_count FROM sync_state") == [("syncing", "idle", 0)]


def test_the_backend_switches_scheduled_runs_off(machine: Machine) -> None:
    machine.pull()
    machine.sql("UPDATE sync_state SET auto_sync_enabled = FALSE")
    for command in (("sync", "skills"), ("sync", "ratings"), ("cache", "purge")):
        skipped = machine.command(*command, "--scheduled", "--json", ENABLE_SCHEDULER="true")
        assert skipped.returncode == 0, command
        assert "Atom backend" in skipped.stderr, command
    for screen in ("jobs", "status"):
        assert "Atom backend" in machine.command(screen).stdout, screen
    machine.pull()  # a manual sync works, and the switch stays
    assert machine.sql("SELECT auto_sync_enabled FROM sync_state") == [(0,)]


def test_totals_outlive_the_runs_that_they_count(machine: Machine) -> None:
    machine.pull()
    before = machine.status().sync
    machine.sql("DELETE FROM sync_run")
    machine.pull()
    assert machine.status().sync.total_syncs == before.total_syncs + 1
