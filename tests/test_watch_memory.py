"""The memory of `watch` while a marketplace sends the worst messages and pages at the same time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from scripted_support import scripted_marketplace
from watch_support import STOP_PATIENCE, deaf_flood, messages, runs, tables_exist, text_frame

from atom_saas_sync.core.incoming.bodies import memory_of
from atom_saas_sync.core.incoming.limits import MAX_MESSAGE_MEMORY

MOST_OF_WATCH = 200
"""In MiB."""


def as_many(value: str) -> str:
    """Return a field with as many values as a message may have, in bytes or decoded."""
    by_bytes, by_memory = 900_000 / (len(value) + 1), MAX_MESSAGE_MEMORY / (memory_of(f"{value}," * 1000) / 1000)
    return '"metadata":{"a":[%s1]}' % (f"{value}," * int(0.98 * min(by_bytes, by_memory)))


CONTENTS = {
    "wide letters": '"code":"%s\N{GRINNING FACE}"' % ("x" * 900_000),
    "objects": as_many('{"a":1}'),
    "nested lists": as_many("[" * 90 + "]" * 90),
    "lists": as_many("[]"),
}
PAGES = {
    "letters": '"code":"%s"' % ("x" * 15_000),
    "wide letters": '"code":"%s\N{GRINNING FACE}"' % ("x" * 15_000),
    "objects": '"metadata":{"a":[%s1]}' % ('{"a":1},' * 500),
}
SOAK_SECONDS = float(os.environ.get("ATOM_SOAK_SECONDS", "25"))


def skill(skill_id: str, name: str, content: str) -> bytes:
    return f'{{"skill_id":"{skill_id}","name":"{name}",{content}}}'.encode()


def peak_of_watch(machine: Machine, message: str, page: str, enough: Callable[[], bool]) -> float:
    """Return the memory in MiB that `watch` takes at most until `enough`, in a flood and with a list of 2,000 skills.

    Two versions of one skill take turns, so that each message changes something.
    """
    flood = [b'{"type":"skill_update","data":%s}' % skill("flood", name, CONTENTS[message]) for name in ("a", "b")]
    listed = [skill(f"s{number}", "n", PAGES[page]) for number in range(2000)]
    with scripted_marketplace(listed) as market, deaf_flood(b"".join(map(text_frame, flood))) as port:
        variables = {
            "ATOM_SAAS_API_URL": market.url,
            "ATOM_SAAS_WS_URL": f"ws://127.0.0.1:{port}",
            "PYTHONUTF8": "1",  # a real start: a fork begins with the memory of its parent
        }
        with machine.started("watch", ATOM_SAAS_SYNC_BATCH_SIZE="1000", **variables) as process:
            wait_until(lambda: tables_exist(machine) and enough(), 120)
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_PATIENCE) == 0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def test_the_largest_messages_and_pages_at_once(machine: Machine) -> None:
    """It takes seconds: a real process decodes and writes messages of the maximum size."""

    def enough() -> bool:
        return messages(machine, "skill_update") >= 4 and ("skills", "success") in runs(machine)

    assert peak_of_watch(machine, "lists", "letters", enough) < MOST_OF_WATCH


@pytest.mark.soak
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("message", CONTENTS)
def test_the_largest_messages_and_pages_for_longer(machine: Machine, message: str, page: str) -> None:
    end = time.monotonic() + SOAK_SECONDS

    def enough() -> bool:
        return time.monotonic() > end and messages(machine, "skill_update") >= 4

    found = peak_of_watch(machine, message, page, enough)
    print(f"{message} in messages, {page} on pages: {found:.0f} MiB")  # noqa: T201 - the figures of RELIABILITY.md
    assert found < MOST_OF_WATCH
