"""Compute the next run of something periodic."""

from __future__ import annotations

from datetime import datetime, timedelta

_LARGEST_SPREAD = timedelta(minutes=2)
_CLOCKS_DIFFER = timedelta(minutes=1)  # more is refused when a host opens the database


def first_run(last_started: datetime | None, interval: timedelta, now: datetime, jitter: float) -> datetime:
    """Return the first run of a job after a start: at once if it is due or never ran, with jitter (0 to 1).

    A last start in the future comes from a clock that was set back since, and is ignored.
    """
    due = now if last_started is None or last_started > now else max(now, last_started + interval)
    return due + spread(interval) * jitter


def next_run(planned: datetime, interval: timedelta, now: datetime) -> datetime:
    """Return the run after the one planned for `planned`; missed runs are made up for by a single run.

    All later runs keep the jitter of the first, so that a thousand instances stay spread and each keeps its interval.
    """
    following = planned + interval
    if following > now:
        return following
    missed = (now - following) // interval
    return following + interval * (missed + 1)


def spread(interval: timedelta) -> timedelta:
    """Return the width of the jitter: a tenth of the interval, at most two minutes."""
    return min(interval / 10, _LARGEST_SPREAD)


def scheduled_run_is_due(last_success: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Tell whether a run started by a timer is due: cron may start it more often than configured.

    Nine tenths of the interval are enough, because timers add random delays. A success in the future comes from a clock
    that was set back since.
    """
    return last_success is None or not timedelta() <= now - last_success < interval * 0.9


def is_fresh(last_success: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Tell whether some host has done a job so recently that no other host needs to: half the interval.

    A success up to a minute in the future counts: the clock of the host that did it may be ahead of ours.
    """
    return last_success is not None and -_CLOCKS_DIFFER <= now - last_success < interval / 2


def poll_is_due(last_started: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Tell whether `watch` must poll because no other process did.

    A quarter of the interval later, so that it does not always preempt a timer with a random delay. Times in the
    future, from a clock that was set back, do not prevent it.
    """
    return last_started is None or not now - interval * 1.25 < last_started <= now
