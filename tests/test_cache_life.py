"""The lifetime of cached entries, with a simulated clock: expiry, stale-if-error, strict mode, protection of local
edits.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from conftest import Machine

from atom_saas_sync.usecases.purge_cache import Purged, PurgeOptions, purge_cache


def _purge(
    machine: Machine,
    *,
    older_than: timedelta | None = None,
    everything: bool = False,
    include_local: bool = False,
    strict: bool = False,
    dry_run: bool = False,
) -> Purged:
    options = PurgeOptions(
        older_than=older_than, everything=everything, include_local=include_local, strict=strict, dry_run=dry_run
    )
    with machine.store() as store:
        return purge_cache(store.lifetime(), options, actor="tester", now=machine.clock.now())


def _away_for(machine: Machine, hours: int) -> None:
    """Make the marketplace unreachable while timers keep trying."""
    machine.sandbox.fault("error", status=503)
    for _ in range(hours):
        machine.clock.move(hours=1)
        assert machine.pull().exit_code == 69
    machine.sandbox.clear_faults()


def test_30_hours_away_purge_keeps_the_cache_and_one_sync_confirms_it(machine: Machine) -> None:
    machine.fill()
    _away_for(machine, 30)
    purged = _purge(machine)
    assert purged.removed.skills == ()
    assert purged.kept_stale is not None
    assert len(purged.kept_stale.skills) == 60
    assert len(machine.cached()) == 60
    with machine.store() as store:
        assert store.figures().statistics(machine.clock.now()).stale == 60
    assert machine.pull().status == "success"
    with machine.store() as store:
        assert store.figures().statistics(machine.clock.now()).stale == 0
    purged = _purge(machine)
    assert (purged.removed.skills, purged.kept_stale) == ((), None)


@pytest.mark.parametrize("strict", [True, False])
def test_strict_mode_and_all_remove_what_is_stale(machine: Machine, strict: bool) -> None:
    machine.fill()
    edited = machine.sandbox.skill_ids()[0]
    machine.edit(edited, description="edited here")
    machine.sql("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('only-here', ?)", '{"skill_id": "only-here"}')
    _away_for(machine, 30)
    _purge(machine, strict=strict, everything=not strict)
    assert machine.cached().keys() == {edited, "only-here"}


def test_all_with_include_local_removes_everything_and_a_sync_brings_it_back(machine: Machine) -> None:
    machine.fill()
    machine.edit(machine.sandbox.skill_ids()[0], description="edited here")
    _purge(machine, everything=True, include_local=True)
    assert machine.cached() == {}
    report = machine.pull()
    assert (report.status, report.counts.added) == ("success", 60)
    assert machine.cached() == machine.listed()


def test_only_what_was_not_confirmed_for_a_day_goes(machine: Machine) -> None:
    machine.pull(page_size=20)
    machine.clock.move(hours=25)
    machine.sandbox.fault("error", endpoint="list", page=2, status=503)
    assert machine.pull(page_size=20).status == "partial"
    purged = _purge(machine, dry_run=True)
    assert len(purged.removed.skills) == 20
    assert len(machine.cached()) == 60
    assert _purge(machine).removed.skills == purged.removed.skills
    assert len(machine.cached()) == 40
    machine.sandbox.clear_faults()
    assert machine.pull(page_size=20).counts.added == 20


def test_older_than(machine: Machine) -> None:
    machine.fill()
    machine.clock.move(hours=2)
    assert _purge(machine, older_than=timedelta(hours=3)).removed.skills == ()
    assert len(_purge(machine, older_than=timedelta(hours=1)).removed.skills) == 60


def test_purged_skills_are_no_longer_found(machine: Machine) -> None:
    machine.fill()
    _purge(machine, everything=True)
    assert machine.found("the") == machine.found("a") == []
    assert machine.sql("SELECT count(*) FROM usable_skill") == [(0,)]
