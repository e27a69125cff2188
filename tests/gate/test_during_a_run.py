"""What somebody decides while a sync is running holds for the rest of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from conftest import Machine
from test_gated_sync import REVIEW, Gated, Scan, change
from test_push_gate import update

from atom_saas_sync.core.gate.types import Gate, Policy
from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.usecases.follow_events import EventFollower
from atom_saas_sync.usecases.gate import pins_and_quarantine
from atom_saas_sync.usecases.gate.current import CurrentGate
from atom_saas_sync.usecases.write_pages import PageWriter


@pytest.fixture(params=["open", "review"])
def gated(machine: Machine, request: pytest.FixtureRequest) -> Gated:
    machine.fill()
    found = Gated(machine)
    found.policy = REVIEW if request.param == "review" else Policy()
    found.sync()
    return found


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Return how to do something between the arrival of the first page and its transaction."""

    def set_up(do: Callable[[], object]) -> None:
        flush, left = PageWriter.flush, [do]

        def flush_later(self: PageWriter) -> None:
            if self._unwritten and left:
                left.pop()()
            flush(self)

        monkeypatch.setattr(PageWriter, "flush", flush_later)

    return set_up


def revoke(gated: Gated, skill_id: str) -> None:
    gated.decide(
        pins_and_quarantine.add_revocation, skill_id=skill_id, version=None, digest=None, publisher=None, note=None
    )


DECISIONS: dict[str, Callable[[Gated, str], object]] = {
    "revocation of the id": revoke,
    "revocation of the version": lambda gated, skill_id: gated.decide(
        pins_and_quarantine.add_revocation, skill_id=skill_id, version="9.0.0", digest=None, publisher=None, note=None
    ),
    "quarantine": lambda gated, skill_id: gated.decide(pins_and_quarantine.quarantine, [skill_id], note="odd"),
    "pin": lambda gated, skill_id: gated.decide(pins_and_quarantine.add_pin, skill_id, note=None),
}


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_decision_during_a_run_holds_for_the_rest_of_it(
    gated: Gated, meanwhile: Callable[[Callable[[], object]], None], decision: str
) -> None:
    first = gated.machine.sandbox.skill_ids()[0]
    before = gated.served(first)
    change(gated, first)
    meanwhile(lambda: DECISIONS[decision](gated, first))
    gated.sync()
    gone = decision in ("revocation of the id", "quarantine")
    assert gated.served(first) == (None if gone else before)


def test_a_revocation_during_a_scan_is_stronger_than_its_result(gated: Gated) -> None:
    first, second = gated.machine.sandbox.skill_ids()[:2]
    gated.policy = Policy(scan_command=("scan",))
    gated.sync()
    change(gated, first)
    change(gated, second)

    class Slow(Scan):
        """A scan during which somebody revokes a skill."""

        def scan(self, *arguments: Any, **options: Any) -> Any:
            results = list(super().scan(*arguments, **options))
            revoke(gated, first)
            return results

    gated.scanner = Slow()
    gated.sync()
    assert (gated.served(first), gated.served(second)) == (None, "9.0.0")
    assert sorted(gated.scanner.asked) == sorted([first, second])


@pytest.mark.parametrize("decision", ["revocation of the id", "quarantine"])
def test_a_decision_between_loading_the_gate_and_a_message_counts(machine: Machine, decision: str) -> None:
    machine.fill()
    gated = Gated(machine)
    first = machine.sandbox.skill_ids()[0]
    (news,) = [parse_frame(json.dumps(update(first, code="other")))]
    assert isinstance(news, Message)
    with machine.store() as store:
        desk = gated.desk(store)
        current = CurrentGate(desk, gated.files)

        def loaded(now: datetime) -> Gate:
            gate = current.get(now)
            DECISIONS[decision](gated, first)
            return gate

        follower = EventFollower(store.events(history_versions=2), strategy="remote_wins", gate=loaded)
        follower.apply([news], machine.clock.now())
    assert gated.served(first) is None
