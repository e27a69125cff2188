"""One thread cuts off whichever exchange takes too long, and no other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from atom_saas_sync.marketplace.time_limits import TimeLimits

LONG, SHORT = 60.0, 0.05


class Connection:
    """Both ends of a connection."""

    def __init__(self, stack: ExitStack) -> None:
        self.ours, self.theirs = (stack.enter_context(each) for each in socket.socketpair())
        self.theirs.settimeout(10)

    def wait_until_cut_off(self) -> None:
        assert self.theirs.recv(1) == b""

    def works(self) -> bool:
        self.ours.sendall(b"x")
        return self.theirs.recv(1) == b"x"


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    with ExitStack() as stack:
        yield [Connection(stack) for _ in range(2)]


@pytest.fixture
def limits() -> Iterator[TimeLimits]:
    limits = TimeLimits()
    yield limits
    limits.close()
    for thread in watchers():
        thread.join(10)
    assert watchers() == []


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "time-limits"]


def test_a_shorter_limit_that_begins_later_is_kept(limits: TimeLimits, connections: list[Connection]) -> None:
    slow, quick = connections
    patient = limits.begin(LONG, slow.ours)
    impatient = limits.begin(SHORT, quick.ours)
    quick.wait_until_cut_off()
    assert impatient.expired
    assert not patient.expired
    assert slow.works()
    assert len(watchers()) == 1


def test_what_has_ended_in_time_is_left_alone(limits: TimeLimits, connections: list[Connection]) -> None:
    done, late = connections
    in_time = limits.begin(SHORT, done.ours)
    limits.end(in_time)
    limits.begin(2 * SHORT, late.ours)
    late.wait_until_cut_off()
    assert not in_time.expired
    assert done.works()


def test_after_a_rest_the_next_limit_is_kept_too(limits: TimeLimits, connections: list[Connection]) -> None:
    first, second = connections
    limits.begin(SHORT, first.ours)
    first.wait_until_cut_off()
    limits.begin(SHORT, second.ours)
    second.wait_until_cut_off()


def test_one_that_is_closed_already_is_no_trouble(limits: TimeLimits, connections: list[Connection]) -> None:
    closed, late = connections
    closed.ours.close()
    limits.begin(SHORT, closed.ours)
    limits.begin(2 * SHORT, late.ours)
    late.wait_until_cut_off()
