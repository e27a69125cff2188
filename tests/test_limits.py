"""Every limit: docs/SECURITY.md matches the code, and anything above a limit is refused."""

from __future__ import annotations

import importlib
import re
import tracemalloc
from datetime import timedelta
from pathlib import Path
from sys import getsizeof

import msgspec
import pytest

from atom_saas_sync.core.incoming.bodies import check_memory, memory_of
from atom_saas_sync.core.incoming.categories import parse_categories
from atom_saas_sync.core.incoming.fields import id_problem, without_malformed
from atom_saas_sync.core.incoming.limits import (
    MAX_CATEGORIES,
    MAX_COMMENT_LENGTH,
    MAX_ID_LENGTH,
    MAX_MESSAGE_MEMORY,
    MAX_PAGE_ITEMS,
    MAX_PAGE_MEMORY,
    MAX_RATINGS,
    MAX_SKILL_BYTES,
)
from atom_saas_sync.core.incoming.messages import Malformed, Message, parse_frame
from atom_saas_sync.core.incoming.skills import parse_skill_page, read_skill
from atom_saas_sync.errors import BadResponse, TooLarge
from atom_saas_sync.model import InvalidItem, SkillVersion
from atom_saas_sync.usecases.watch.backlog import BATCH_BYTES, BATCH_MESSAGES, WAITING_BYTES, WAITING_MESSAGES, Backlog

_UNITS = {"KiB": 2**10, "MiB": 2**20, "": 1, "s": 1, "days": 1}


def _rows() -> list[list[str]]:
    text = (Path(__file__).parent.parent / "docs" / "SECURITY.md").read_text(encoding="utf-8")
    table = text.partition("## Limits")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row[2].strip("`"))
def test_the_document_has_the_values_of_the_code(row: list[str]) -> None:
    _, value, place, reason, _ = row
    module, _, name = place.strip("`").rpartition(".")
    found = getattr(importlib.import_module(f"atom_saas_sync.{module}"), name)
    number, unit = re.fullmatch(r"([\d,^]+) ?(\w*)", value).groups()  # type: ignore[union-attr]
    base, _, power = number.replace(",", "").partition("^")
    stated = int(base) ** int(power or 1) * _UNITS[unit]
    assert (found.days if isinstance(found, timedelta) else found) == stated
    assert len(reason) > 10


def test_there_are_rows() -> None:
    assert len(_rows()) > 20


def test_the_bounds_of_memory_are_those_of_the_code_and_add_up() -> None:
    text = (Path(__file__).parent.parent / "docs" / "PERFORMANCE.md").read_text(encoding="utf-8")
    table = text.partition("## Memory")[2].partition("\n## ")[0]
    *rows, total = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    named = 0
    for _, bound, *processes in rows:
        stated = {int(each) for each in processes if each.strip()}
        found = re.fullmatch(r"(?:(\d+) \S )?`([\w.]+)\.(\w+)`", bound.strip())
        if found is not None:
            times, module, name = found.groups()
            value = getattr(importlib.import_module(f"atom_saas_sync.{module}"), name) * int(times or 1)
            assert stated == {round(value / (2**10 if name.endswith("_KIB") else 2**20))}, name
            named += 1
        elif "measured" not in bound:
            assert len(stated) == 1
    assert named > 8
    sums = [sum(int(row[place]) for row in rows if row[place].strip()) for place in (2, 3, 4)]
    assert [int(each) for each in total[2:]] == sums


def test_sizes_of_what_a_marketplace_lists() -> None:
    assert id_problem("x" * MAX_ID_LENGTH) is None
    assert id_problem("x" * (MAX_ID_LENGTH + 1)) is not None
    item = b'{"skill_id":"s","name":"n","code":"%s"}'
    room = MAX_SKILL_BYTES - len(item % b"")
    assert isinstance(read_skill(item % (b"x" * room)), SkillVersion)
    assert isinstance(read_skill(item % (b"x" * (room + 1))), InvalidItem)
    with pytest.raises(BadResponse):
        parse_skill_page(b'{"skills":[%s1]}' % (b"1," * MAX_PAGE_ITEMS), page=1, page_size=1000)
    with pytest.raises(BadResponse):
        parse_categories(b'{"categories":[%s1]}' % (b"1," * MAX_CATEGORIES))


def test_ratings_of_a_skill() -> None:
    entry = {"rating": 5, "comment": "x" * MAX_COMMENT_LENGTH}
    kept, _ = without_malformed({"ratings": [entry] * (MAX_RATINGS + 1)})
    assert kept["ratings"] == [entry] * MAX_RATINGS
    kept, _ = without_malformed({"ratings": [{**entry, "comment": entry["comment"] + "x"}]})  # type: ignore[operator]
    assert kept["ratings"] == []


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "[[]]",
        "{}",
        '{"a":1}',
        '{"a":"b"}',
        '{"%d":1}',
        '{"%d":{"a":1.5}}',
        '{"a":1.5,"b":2.5,"c":3.5,"d":4.5,"e":5.5,"f":6.5}',
        "1.5",
        "%d",
        '"b"',
        '"\N{GRINNING FACE}"',
        '"\\ud83d\\ude00%s"' % ("x" * 100),
        "[" * 90 + "]" * 90,
        '{"a":' * 90 + "1" + "}" * 90,
    ],
)
def test_memory_is_estimated_from_above(value: str) -> None:
    """Of a text and what the decoder makes of it; yet not so far above that usual pages become small ones."""
    values = ",".join(value % number if "%d" in value else value for number in range(1000, 2000))
    text = f'{{"skill_id":"s","name":"n","metadata":{{"a":[{values}]}}}}'
    raw = text.encode()
    msgspec.json.decode(raw)  # its cache of keys fills once
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        fields = msgspec.json.decode(raw)
        decoded = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert fields["name"] == "n"
    version = read_skill(raw)
    assert isinstance(version, SkillVersion)
    for estimate in (memory_of(text), version.memory):
        assert decoded + getsizeof(text) <= estimate <= 5 * (decoded + getsizeof(text))


@pytest.mark.parametrize("text", ["[],", '{"a":1},', "1.5,", "\N{GRINNING FACE}", "\\ud83d\\ude00" + "x" * 100])
def test_a_body_that_would_take_too_much_memory_is_refused(text: str) -> None:
    with pytest.raises(TooLarge):
        check_memory((text * (MAX_PAGE_MEMORY // len(text.encode()))).encode(), "it")


@pytest.mark.parametrize("value", ["[]", '{"a":1}', "[" * 90 + "]" * 90])
def test_a_message_that_takes_too_much_memory_is_malformed(value: str) -> None:
    """One that is only just small enough is a message."""
    frame = '{"type":"skill_update","data":{"skill_id":"s","name":"n","metadata":{"a":[%s1]}}}'
    each = memory_of(f"{value}," * 1000) / 1000
    fits, too_large = (frame % (f"{value}," * int(part * MAX_MESSAGE_MEMORY / each)) for part in (0.99, 1.01))
    assert isinstance(parse_frame(fits), Message)
    assert parse_frame(too_large) == Malformed("it would take too much memory")


@pytest.mark.parametrize("value", ['"x"', '"' + "x" * 2000 + '"', "[" + '{"a":1},' * 10_000 + "0]"])
@pytest.mark.parametrize("is_read", [False, True], ids=["frames", "messages"])
def test_the_backlog_of_watch_is_limited(value: str, *, is_read: bool) -> None:
    def read(frame: str) -> Message:
        message = parse_frame(frame)
        assert isinstance(message, Message)
        return message

    backlog = Backlog()
    frame = f'{{"type":"skill_update","data":{{"skill_id":"s","name":"n","value":{value}}}}}'
    while not backlog.full:
        backlog.add(read(frame) if is_read else frame)
    held = len(backlog)
    assert held <= WAITING_MESSAGES
    assert held * len(frame) <= WAITING_BYTES + len(frame)
    while batch := backlog.batch(read):
        assert sum(message.memory for message in batch) < BATCH_BYTES + batch[0].memory
        assert len(batch) <= BATCH_MESSAGES
        backlog.done(batch, 0.1)
    assert not backlog.full
    assert not len(backlog)


@pytest.mark.parametrize(("milliseconds", "most"), [(0.1, BATCH_MESSAGES), (5, 100), (20, 25), (400, 10)])
def test_a_batch_of_messages_is_written_in_half_a_second(milliseconds: float, most: int) -> None:
    backlog = Backlog()
    for number in range(2200):
        backlog.add(Message("skill_delete", f"s{number}"))
    sizes = []
    while batch := backlog.batch(lambda _: None):
        sizes.append(len(batch))
        backlog.done(batch, len(batch) * milliseconds / 1000)
    assert sum(sizes) == 2200
    assert sizes[0] <= 100, "how fast the database is, is not known yet"
    assert sizes[1] == most
