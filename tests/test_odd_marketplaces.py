"""Unusual marketplaces, within the contract or with one violation: everything usable is synced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine
from scripted_support import CATEGORIES, LIST, Answer, ScriptedMarketplace, scripted_marketplace, skill

from atom_saas_sync.core.schedule_files import Schedule, systemd_files
from atom_saas_sync.core.user_units import user_units
from atom_saas_sync.model import RunReport
from atom_saas_sync.times import format_time


@pytest.fixture
def market() -> Iterator[ScriptedMarketplace]:
    """Return a marketplace of six skills."""
    with scripted_marketplace([skill(f"s{number}") for number in range(6)]) as marketplace:
        yield marketplace


def pull(machine: Machine, market: ScriptedMarketplace, *, page_size: int = 3, **options: Any) -> RunReport:
    return machine.pull(url=market.url, page_size=page_size, **options)


# The end of the list


def after_the_end(
    market: ScriptedMarketplace, answer: Answer | None
) -> Callable[[str, Mapping[str, str]], Answer | None]:
    """Answer all pages after the last one with this; None: with the last page."""

    def script(path: str, query: Mapping[str, str]) -> Answer | None:
        size = int(query.get("page_size", "1"))
        last = (len(market.items) + size - 1) // size
        if path != LIST or int(query["page"]) <= last:
            return None
        return answer or (200, market.page(last, size))

    return script


ENDS: dict[str, Answer | None] = {
    "404": (404, b'{"detail": "Invalid page."}'),
    "400": (400, b'{"error": "page out of range"}'),
    "416": (416, b""),
    "422": (422, b"{}"),
    "500": (500, b"oops"),
    "null": (200, b'{"skills": null, "page": 3, "total": 6}'),
    "null, total forgotten": (200, b'{"skills": null}'),
    "total of the page": (200, b'{"skills": [], "total": 0}'),
    "not JSON": (200, b"<html>no more pages</html>"),
    "the last page again": None,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_full_last_page_is_the_end(machine: Machine, market: ScriptedMarketplace, end: str) -> None:
    market.answer = after_the_end(market, ENDS[end])
    for _ in range(2):
        report = pull(machine, market)
        assert (report.status, report.exit_code, report.complete) == ("success", 0, True)
    assert set(machine.cached()) == {f"s{number}" for number in range(6)}
    assert report.counts.unchanged == 6
    del market.items[3:]  # one full page is left
    report = pull(machine, market)
    assert (report.status, report.counts.deleted) == ("success", 3)
    assert set(machine.cached()) == {"s0", "s1", "s2"}
    assert len(market.requests) < 60


@pytest.mark.parametrize("end", ["404", "the last page again"])
def test_a_list_that_is_shorter_than_its_total_is_not_complete(
    machine: Machine, market: ScriptedMarketplace, end: str
) -> None:
    pull(machine, market)
    market.answer = after_the_end(market, ENDS[end])
    market.items.pop(0)
    market.items.append(b"17")
    market.total = 7
    report = pull(machine, market)
    assert (report.status, report.complete, report.counts.deleted) == ("partial", False, 0)
    assert "s0" in machine.cached()


def test_pages_that_a_server_repeats_do_not_move_its_skills(machine: Machine, market: ScriptedMarketplace) -> None:
    market.answer = after_the_end(market, None)
    pull(machine, market)
    for number in range(6, 9):  # the page that was repeated is now a page of its own
        market.items.append(skill(f"s{number}"))
    report = pull(machine, market)
    assert (report.status, report.counts.added, report.counts.unchanged) == ("success", 3, 6)


def test_an_empty_marketplace_may_say_null(machine: Machine, market: ScriptedMarketplace) -> None:
    market.answer = lambda path, _: (200, b'{"skills": null, "total": 0}') if path == LIST else None
    assert pull(machine, market).status == "success"
    market.answer = lambda path, _: (200, b'{"skills": null, "total": 6}') if path == LIST else None
    assert pull(machine, market).exit_code == 65


# The categories


BROKEN_CATEGORIES: dict[str, tuple[Answer, tuple[str, ...], int]] = {
    "400": ((400, b"{}"), ("api_error",), 65),
    "404": ((404, b"{}"), ("bad_response",), 65),
    "500": ((500, b"{}"), ("api_error",), 69),
    "not JSON": ((200, b"<html>"), ("bad_response",), 65),
    "another form": ((200, b'{"categories": {}}'), ("bad_response",), 65),
    "half a surrogate pair": (
        (200, b'{"categories": [{"name": "tools"}, {"name": "\\ud83d"}]}'),
        ("items_invalid",),
        65,
    ),
    "out of range": ((200, b'[{"name": "tools"}, {"name": "b", "skill_count": 1e400}]'), ("items_invalid",), 65),
    "too deep": (
        (200, b'{"categories": [{"name": "tools"}, {"name": "b", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}]}"),
        ("items_invalid",),
        65,
    ),
    "not UTF-8": ((200, b'{"categories": [{"name": "tools"}, {"name": "\xff"}]}'), ("items_invalid",), 65),
    "too many": ((200, b"[" + b"1," * 20_000 + b"1]"), ("bad_response",), 65),
}


@pytest.mark.parametrize("fault", BROKEN_CATEGORIES)
def test_a_failure_of_the_categories_does_not_stop_the_skills(
    machine: Machine, market: ScriptedMarketplace, fault: str
) -> None:
    answer, reasons, exit_code = BROKEN_CATEGORIES[fault]
    pull(machine, market)
    market.items.append(skill("new"))
    market.answer = lambda path, _: answer if path == CATEGORIES else None
    report = pull(machine, market)
    assert (report.status, report.exit_code, report.reasons) == ("partial", exit_code, reasons)
    assert (report.counts.added, report.complete) == (1, True)
    assert machine.sql("SELECT category_name FROM category_cache") == [("tools",)]  # a failed read removes nothing
    if reasons != ("items_invalid",):
        assert report.error is not None
        assert "--no-categories" in (report.error.hint or "")


@pytest.mark.parametrize(("status", "exit_code"), [(401, 77), (429, 75)])
def test_a_refused_token_and_a_used_up_limit_end_the_run_with_the_categories(
    machine: Machine, market: ScriptedMarketplace, status: int, exit_code: int
) -> None:
    market.answer = lambda path, _: (status, b"") if path == CATEGORIES else None
    assert pull(machine, market).exit_code == exit_code
    assert not any(request.startswith(LIST) for request in market.requests)


# Damaged pages


def test_a_page_that_is_not_utf8_is_fetched_again(machine: Machine, market: ScriptedMarketplace) -> None:
    damaged = market.page(1, 3).replace(b'"name": "s1"', b'"name": "s\xe9"')
    times = iter(range(2))
    market.answer = lambda path, query: (
        (200, damaged) if path == LIST and query["page"] == "1" and next(times, None) is not None else None
    )
    report = pull(machine, market)
    assert (report.status, report.counts.added, report.counts.invalid) == ("success", 6, 0)
    assert machine.clock.slept == [1.0]


def test_only_the_damaged_item_of_a_page_is_set_aside(machine: Machine, market: ScriptedMarketplace) -> None:
    market.items[1] = market.items[1].replace(b'"name": "s1"', b'"name": "s\xe9"')
    report = pull(machine, market)
    assert (report.status, report.exit_code, report.reasons) == ("partial", 65, ("items_invalid",))
    assert (report.counts.added, report.counts.invalid, report.complete) == (5, 1, True)
    assert market.requests.count(f"{LIST}?1") == 5  # as it came, and once more with three retries


# Items that can't be used


@pytest.mark.parametrize(
    "item",
    [
        skill(""),
        skill(".."),
        skill("x" * 300),
        b'{"skill_id": 7, "name": "seven"}',
        b'{"skill_id": "same", "version": "1.0.0"}',
        b'{"name": "\\ud800", "inner": {"skill_id": "s0"}}',
        b"null",
        b'{"skill_id": "big", "name": "n", "x": 1e999}',
    ],
)
def test_each_invalid_item_counts_separately(machine: Machine, market: ScriptedMarketplace, item: bytes) -> None:
    pull(machine, market)
    market.items[4:] = [item, item]  # s4 and s5 are gone
    report = pull(machine, market)
    assert (report.status, report.exit_code, report.reasons) == ("partial", 65, ("items_invalid",))
    assert (report.complete, report.counts.invalid, report.counts.deleted) == (True, 2, 2)
    assert set(machine.cached()) == {"s0", "s1", "s2", "s3"}


@pytest.mark.parametrize(
    ("item", "named"),
    [
        (b'{"x": {"skill_id": "inner"}, "name": "\\ud800"}', "(no id)"),
        (b'{"x": [{"id": "inner"}], "skill_id": "outer", "name": "\\ud800"}', "outer"),
        (b'{"name": "\\ud800", "code": "\\"skill_id\\": \\"inner\\"", "id": "outer"}', "outer"),
        (b'{"id": "other", "skill_id": "outer", "name": 1e400}', "outer"),
    ],
)
def test_an_unreadable_item_is_named_by_its_own_id(
    machine: Machine, market: ScriptedMarketplace, caplog: pytest.LogCaptureFixture, item: bytes, named: str
) -> None:
    market.items.append(item)
    pull(machine, market)
    assert f"skipped an invalid item: {named}: " in caplog.text


def nested(levels: int) -> bytes:
    """Return a skill with so many levels, itself among them."""
    inner = b'{"a":' * (levels - 1) + b"1" + b"}" * (levels - 1)
    return b'{"skill_id": "deep", "name": "Deep", "parameters": ' + inner + b"}"


@pytest.mark.parametrize(("levels", "taken"), [(100, True), (101, False), (960, False), (974, False), (50_000, False)])
def test_skills_may_be_nested_100_deep(machine: Machine, market: ScriptedMarketplace, levels: int, taken: bool) -> None:
    market.items.append(nested(levels))
    result = machine.command("sync", "skills", "--json", ATOM_SAAS_API_URL=market.url)
    assert result.returncode == (0 if taken else 65)
    assert "Traceback" not in result.stderr
    assert ("deep" in machine.cached()) is taken
    if taken:
        market.items[-1] = nested(levels).replace(b'"Deep"', b'"Deeper"')
        machine.edit("deep", name="Mine")
        report = pull(machine, market, strategy="merge")
        assert report.counts.conflicts_detected == 1
    else:
        assert "nested deeper than 100 levels" in result.stderr


def test_a_deep_skill_that_was_stored_by_another_program_harms_nothing(
    machine: Machine, market: ScriptedMarketplace
) -> None:
    pull(machine, market)
    machine.sql("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 's1'", nested(960).decode())
    assert pull(machine, market, force=True).status == "success"


# Numbers


@pytest.mark.parametrize("total", [2**63, -1, 2**53 + 1, 10**400, 6.5, "6", True])
def test_an_impossible_total_is_ignored(machine: Machine, market: ScriptedMarketplace, total: object) -> None:
    market.total = total
    report = pull(machine, market)
    assert (report.status, report.counts.added) == ("success", 6)
    assert report.proof.total_after is None


@pytest.mark.parametrize("number", ["1e308", "9223372036854775808", "1" + "0" * 400, "-0.0", "1e-400"])
def test_numbers_of_any_size_are_kept_and_shown(machine: Machine, market: ScriptedMarketplace, number: str) -> None:
    market.items[0] = b'{"skill_id": "s0", "name": "zero", "weight": %s, "nested": {"weight": [%s]}}' % (
        (number.encode(),) * 2
    )
    assert pull(machine, market).status == "success"
    shown = machine.command("skills", "show", "s0", "--json")
    assert shown.returncode == 0, shown.stderr
    assert machine.command("sync", "skills", "--dry-run", ATOM_SAAS_API_URL=market.url).returncode == 0


# Times


@pytest.mark.parametrize("moment", [1771497000, 1771497000.25, 1771497000123, "2026-02-19t10:30:00z", None])
def test_any_form_of_a_time_is_kept(machine: Machine, market: ScriptedMarketplace, moment: object) -> None:
    market.items[0] = skill("s0", updated_at=moment, created_at=moment)
    assert pull(machine, market).status == "success"
    assert machine.cached()["s0"]["updated_at"] == moment


def test_an_unreadable_update_time_is_dropped(machine: Machine, market: ScriptedMarketplace) -> None:
    market.items[0] = skill("s0", updated_at="soon", created_at="soon")
    assert pull(machine, market).status == "success"
    assert "updated_at" not in machine.cached()["s0"]
    assert machine.cached()["s0"]["created_at"] == "soon"


# Ratings stored there by other users or programs


STORED = (
    b'"rating": 5.0',
    b'"rating": 5, "comment": "%s"' % (b"long " * 400),
    b'"rating": 5, "comment": "bell \\u0007"',
    b'"rating": 5, "comment": "half \\ud83d"',
)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("shown_by", ["the answer", "the skill"])
def test_a_stored_rating_that_we_could_not_send_is_read(
    machine: Machine, market: ScriptedMarketplace, stored: bytes, shown_by: str
) -> None:
    pull(machine, market)
    machine.sql(
        "INSERT INTO skill_rating (skill_id, user_id, rating, updated_at) VALUES ('s0', 'ann', 2, ?)",
        format_time(machine.clock.now() - timedelta(days=1)),
    )
    newer = format_time(datetime.now(UTC) - timedelta(hours=1)).encode()  # the server's clock is the real one
    rating = b'{"rating_id": "r1", "user_id": "ann", "updated_at": "' + newer + b'", ' + stored + b"}"
    stranger = b'{"user_id": "bob", "rating": 1, "comment": "\\udc00"}'
    conflict = (409, rating if shown_by == "the answer" else b"{}")
    skill_page = (200, b'{"skill_id": "s0", "name": "s0", "ratings": [' + stranger + b", " + rating + b"]}")
    market.answer = lambda path, _: {"/api/v1/ratings": conflict, f"{LIST}/s0": skill_page}.get(path)
    report = machine.send_ratings(url=market.url)
    assert (report.status, report.counts.updated_local, report.counts.failed) == ("success", 1, 0)
    assert machine.sql("SELECT rating, synced_to_saas FROM skill_rating") == [(5, 1)]


# Many items


def test_a_page_of_more_than_1000_items_is_refused(machine: Machine, market: ScriptedMarketplace) -> None:
    market.answer = lambda path, _: (200, b'{"skills":[' + b"1," * 50_000 + b'1],"total":1}') if path == LIST else None
    report = pull(machine, market)
    assert (report.exit_code, report.reasons) == (65, ("bad_response",))
    assert report.counts.invalid == 0
    market.answer = lambda path, _: (
        (200, b'{"skills":[{"name":"\\ud800"},' + b"1," * 50_000 + b'1],"total":1}') if path == LIST else None
    )
    assert pull(machine, market).counts.invalid == 0


def test_a_server_may_ignore_the_page_size(machine: Machine, market: ScriptedMarketplace) -> None:
    market.answer = lambda path, _: (200, market.page(1, 1000)) if path == LIST else None
    report = pull(machine, market, page_size=4)
    assert (report.status, report.complete, report.counts.added) == ("success", True, 6)


def test_ten_of_many_invalid_items_are_named(
    machine: Machine, market: ScriptedMarketplace, caplog: pytest.LogCaptureFixture
) -> None:
    market.items = [b"1"] * 200
    report = pull(machine, market, page_size=50)
    assert report.counts.invalid == 200
    assert caplog.text.count("skipped an invalid item") == 10
    assert "skipped 190 more invalid items" in caplog.text


@pytest.mark.parametrize(
    "body", [b'{"skills":[' + b"1," * 6_000_000 + b"1]}", b'{"skills":["\\ud800",' + b"{}," * 4_000_000 + b"{}]}"]
)
def test_millions_of_items_take_no_memory(machine: Machine, market: ScriptedMarketplace, body: bytes) -> None:
    usual = peak(machine, market)
    bodies = iter([body])  # once; the retry finds the list as it should be
    market.answer = lambda path, _: next(((200, each) for each in bodies), None) if path == LIST else None
    assert peak(machine, market) < usual + 100
    assert market.requests.count(f"{LIST}?1") == 3


def peak(machine: Machine, market: ScriptedMarketplace, **variables: str) -> float:
    """Return the memory in MiB that a sync takes at most."""
    result, mebibytes = machine.peak_of_a_sync(ATOM_SAAS_API_URL=market.url, **variables)
    assert result.returncode in {0, 65}
    return mebibytes


MOST_OF_A_SYNC = 250
"""In MiB, and the most that a pod or unit needs for a sync."""
MOST_OF_WATCH = 200
"""In MiB; tests/test_watch_memory.py measures it."""

LARGE = {
    "letters": '"code":"%s"' % ("x" * 100_000),
    "wide letters": '"code":"%s\N{GRINNING FACE}"' % ("x" * 60_000),
    "tiny values": '"metadata":{"a":[%s1]}' % ('{"a":1},' * 4000),
}


@pytest.mark.parametrize("content", LARGE.values(), ids=LARGE)
def test_pages_of_the_largest_size_fit_into_the_pod(
    machine: Machine, market: ScriptedMarketplace, content: str
) -> None:
    """Pages that would not are asked for again with fewer skills."""
    market.items = [f'{{"skill_id":"large-{number}","name":"n",{content}}}'.encode() for number in range(200)]
    assert peak(machine, market, ATOM_SAAS_SYNC_BATCH_SIZE="200") < MOST_OF_A_SYNC
    assert machine.sql("SELECT count(*) FROM skill_cache") == [(200,)]
    assert f"{LIST}?4" in market.requests
    pages = len(market.requests)
    assert pull(machine, market, page_size=200).status == "success"
    assert len(market.requests) < 2 * pages, "the page size that did is known"


@pytest.mark.parametrize(("pages", "calls"), [(1, 0), (2, 1)])
def test_the_memory_of_many_large_pages_is_returned(
    machine: Machine, market: ScriptedMarketplace, monkeypatch: pytest.MonkeyPatch, pages: int, calls: int
) -> None:
    called: list[int] = []
    monkeypatch.setattr("atom_saas_sync.marketplace.client.return_large_blocks", lambda: called.append(1))
    market.items = [
        b'{"skill_id":"large-%d","name":"n","code":"%s"}' % (number, b"x" * 600_000) for number in range(2 * pages)
    ]
    assert pull(machine, market, page_size=2).counts.added == 2 * pages
    assert len(called) == calls
    market.items[-1] = market.items[-1].replace(b'"n"', b'"m"')
    assert pull(machine, market, page_size=2).counts.updated == 1
    assert len(called) == calls, "pages that are known bring little"


def test_limits_of_pods_and_units_leave_room_for_it() -> None:
    root = Path(__file__).parent.parent
    schedule = Schedule(15, 30)
    texts = {name: text for name, text in systemd_files(schedule).items() if name.endswith(".service")}
    texts |= {f"user/{name}": text for name, text in user_units(schedule).items() if name.endswith(".service")}
    texts |= {f"shipped/{path.name}": path.read_text(encoding="utf-8") for path in root.glob("systemd/*.service")}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in root.glob("kubernetes/*.yaml")}
    most = {"purge": 0, "backup": 0, "ratings": 0, "skills": MOST_OF_A_SYNC, "watch": MOST_OF_WATCH}
    assert len(texts) > 20
    for name, text in texts.items():
        if "failed@" in name:  # it only prints a line
            continue
        found = re.findall(
            r"^ *(?:MemoryMax=|limits: *\{memory: *|mem_limit: *)(\d+)M", text, re.MULTILINE | re.IGNORECASE
        )
        need = next((bar for kind, bar in most.items() if f"sync-{kind}" in name), MOST_OF_A_SYNC)
        assert found, name
        assert min(map(int, found)) > need, name
