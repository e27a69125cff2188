"""The next run of something periodic, from times alone."""

from __future__ import annotations

from datetime import datetime, timedelta

_LARGEST_SPREAD = timedelta(minutes=2)


def first_run(last_started: datetime | None, interval: timedelta, now: datetime, jitter: float) -> datetime:
    """Return when a job runs first after a start: at once if it is due or never ran, with jitter (0 to 1).

    A last start in the future is of a clock that was set back since, and says nothing.
    """
    due = now if last_started is None or last_started > now else max(now, last_started + interval)
    return due + spread(interval) * jitter


def next_run(planned: datetime, interval: timedelta, now: datetime) -> datetime:
    """Return the run after the one that was planned for `planned`; missed runs are made up for once.

    The jitter of the first run stays in all that follow: a thousand instances stay spread, and each keeps its interval.
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
    """Tell whether a run that a timer started is due: cron may have to start it more often than configured.

    Nine tenths of the interval are enough, because of the delays at random. A success in the future is of a clock that
    was set back since.
    """
    return last_success is None or not timedelta() <= now - last_success < interval * 0.9


def poll_is_due(last_started: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Tell whether `watch` must poll because nothing else did.

    A quarter late, so that a timer with a random delay is not forestalled each time; clocks that were set back don't
    keep it off.
    """
    return last_started is None or not now - interval * 1.25 < last_started <= now
