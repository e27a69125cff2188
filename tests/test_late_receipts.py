"""The response to a rating contains the skill's average at that time; an outdated one must not stay."""

from __future__ import annotations

import pytest
from conftest import Machine

from atom_saas_sync.model import Delivery, RatingReceipt


@pytest.mark.parametrize("edited", [False, True])
def test_a_receipt_that_was_overtaken_by_a_poll_is_put_right_by_the_next(machine: Machine, edited: bool) -> None:
    machine.pull()
    skill_id = machine.sandbox.skill_ids()[0]
    if edited:
        machine.edit(skill_id, description="ours")
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'anna', 4)", skill_id)
    machine.sandbox.add_rating(skill_id, "anna", 4)
    then = machine.sandbox.skill(skill_id)
    machine.sandbox.add_rating(skill_id, "berta", 1)
    machine.pull()
    with machine.store() as store:
        ratings = store.ratings()
        (rating,) = ratings.load(ratings.due_ids(machine.clock.now()))
        receipt = RatingReceipt("r1", then["average_rating"], then["rating_count"])
        ratings.record_deliveries([Delivery(rating, "sent", receipt=receipt)], now=machine.clock.now(), requests={})
    figures = ("average_rating", "rating_count")
    assert [machine.cached()[skill_id][name] for name in figures] == [then[name] for name in figures]
    assert machine.pull().status == "success"
    now = machine.sandbox.skill(skill_id)
    assert [machine.cached()[skill_id][name] for name in figures] == [now[name] for name in figures]
    assert now["rating_count"] == then["rating_count"] + 1
