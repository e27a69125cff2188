"""Parsing: any input gives a value, an InvalidItem or a BadResponse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atom_saas_sync.core.incoming.categories import parse_categories
from atom_saas_sync.core.incoming.fields import TEXT_FIELDS
from atom_saas_sync.core.incoming.messages import Malformed, parse_frame
from atom_saas_sync.core.incoming.ratings import parse_conflict, parse_receipt, parse_skill_ratings
from atom_saas_sync.core.incoming.skills import parse_skill_page, read_skill
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import InvalidItem, SkillVersion

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "skill_id",
    "name",
    "description",
    "version",
    "code",
    "command",
    "python_packages",
    "npm_packages",
    "tags",
    "metadata",
    "category",
    "average_rating",
    "rating_count",
    "created_at",
    "updated_at",
    "content_hash",
    "unknown",
]
SKILLS = st.dictionaries(st.sampled_from([*FIELDS, "id"]), JSON) | JSON


def _page(items: list[Any], **extra: Any) -> bytes:
    return json.dumps({"skills": items, **extra}).encode()


@given(st.lists(SKILLS, max_size=5), JSON)
def test_any_page_of_json_items_is_cut_into_exactly_these_items(items: list[Any], total: Any) -> None:
    page = parse_skill_page(_page(items, total=total, page=1), page=1, page_size=1000)
    assert [json.loads(bytes(raw)) for raw in page.items or ()] == items
    assert page.total == (total if type(total) is int and 0 <= total <= 2**53 else None)


NO_TEXTS: tuple[object, ...] = (7, ["a"], {"a": "b"}, False)
NO_TIMES: tuple[object, ...] = ([], {}, True)
NO_LISTS: tuple[object, ...] = ("a", [7], {"a": 1})
NO_OBJECTS: tuple[object, ...] = ([], "a", 0)
WRONG_TYPES = [
    *((name, value, "a string") for name in TEXT_FIELDS for value in NO_TEXTS),
    *(("created_at", value, "a time") for value in NO_TIMES),
    *((name, value, "a list of strings") for name in ("python_packages", "npm_packages", "tags") for value in NO_LISTS),
    *(("metadata", value, "an object") for value in NO_OBJECTS),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG_TYPES)
def test_a_field_of_a_wrong_type_makes_an_item_or_message_unusable(name: str, value: object, expected: str) -> None:
    fields = json.dumps({"skill_id": "a", "name": "n", name: value})
    read, message = read_skill(fields.encode()), parse_frame(f'{{"type": "skill_update", "data": {fields}}}')
    assert isinstance(read, InvalidItem) and isinstance(message, Malformed)
    assert read.reason == f"{name} is not {expected}"
    assert message.reason == f"skill_update: {read.reason}"


@given(SKILLS)
def test_an_item_is_kept_whole_or_named_invalid(item: Any) -> None:
    read = read_skill(json.dumps(item).encode())
    if isinstance(read, SkillVersion):
        assert read.dropped or json.loads(read.text) == item
        assert isinstance(item["name"], str)
        assert read.skill_id == item.get("skill_id", item.get("id"))
    else:
        assert read.reason


@settings(deadline=None)
@given(st.binary())
@example(b'{"skills": [{"a": 1}, {"b": "\\ud800"}, [')
@example(b'{"skills": []]')
@example(b"[" * 20_000)
def test_any_bytes_are_a_page_or_a_bad_response(body: bytes) -> None:
    try:
        page = parse_skill_page(body, page=1, page_size=1000)
    except BadResponse:
        return
    for raw in map(bytes, page.items or ()):
        read_skill(raw)


@pytest.mark.parametrize("odd", [r'{"skill_id": "x", "name": "\ud800"}', "[" * 10_000 + "]" * 10_000])
def test_one_odd_item_does_not_stop_the_rest(odd: str) -> None:
    body = '{"page": 1, "skills": [{"skill_id": "a", "name": "A, [b]"}, ' + odd + ', {"skill_id": "c", "name": "}"}]}'
    read = [read_skill(bytes(raw)) for raw in parse_skill_page(body.encode(), page=1, page_size=1000).items or ()]
    assert [item.skill_id for item in read if isinstance(item, SkillVersion)] == ["a", "c"]
    assert sum(isinstance(item, InvalidItem) for item in read) == 1


@pytest.mark.parametrize("value", ["", ".", "..", "a\nb", "a\x00", "\x1b[31m", 7, None, ["x"], "x" * 257])
def test_ids_that_cannot_be(value: object) -> None:
    assert isinstance(read_skill(json.dumps({"skill_id": value, "name": "n"}).encode()), InvalidItem)


@pytest.mark.parametrize("value", ["a/b", "@scope/name", "ünï", "a b", "a%2Fb", "x" * 256])
def test_odd_ids_that_can_be(value: str) -> None:
    read = read_skill(json.dumps({"skill_id": value, "name": "n"}).encode())
    assert isinstance(read, SkillVersion)
    assert read.skill_id == value


@pytest.mark.parametrize(
    "body", [b'{"categories": [{"name": "a"}, {"name": ""}, {}]}', b'[{"name": "a"}, {"name": "\\u0001"}, 3]']
)
def test_categories_come_as_an_object_or_a_bare_list(body: bytes) -> None:
    good, bad = parse_categories(body)
    assert [category.name for category in good] == ["a"]
    assert len(bad) == 2


@pytest.mark.parametrize("body", [b"", b"{}", b'{"categories": {}}', b"3", b"\xff", b"[" * 100_000])
def test_categories_of_another_form_are_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_categories(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"rating_id": null}', b'{"rating_id": ""}', b'{"rating_id": ".."}', b'{"rating_id": "a\\n"}',
     b'{"success": false, "rating_id": "r"}', b'{"rating_id": "r"', b"\xff"],
)  # fmt: skip
def test_invalid_receipts(body: bytes) -> None:
    with pytest.raises(BadResponse):
        parse_receipt(body)


@pytest.mark.parametrize(
    ("more", "figures"),
    [
        ({"average_rating": 4.5, "rating_count": 2}, (4.5, 2)),
        ({"average_rating": "4.5", "rating_count": -1}, (None, None)),
        ({"average_rating": 9, "rating_count": True}, (None, None)),
    ],
)
def test_figures_that_can_t_be_are_left_out(more: dict[str, object], figures: tuple[float | None, int | None]) -> None:
    receipt = parse_receipt(json.dumps({"rating_id": 7, **more}).encode())
    assert (receipt.rating_id, (receipt.average, receipt.count)) == ("7", figures)


@pytest.mark.parametrize(
    ("document", "stars"),
    [
        ({"rating": 3, "rating_id": "r"}, 3),
        ({"rating": {"rating": 3, "rating_id": "r", "user_id": "ann", "skill_id": "s"}}, 3),
        ({"rating": 3, "user_id": "bob"}, None),
        ({"rating": 3, "skill_id": "other"}, None),
        ({"rating": 9}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_conflict_shows_the_rating_in_either_form_or_none(document: object, stars: int | None) -> None:
    found = parse_conflict(json.dumps(document).encode(), skill_id="s", user_id="ann")
    assert (found.stars if found else None) == stars


def test_the_valid_ratings_of_a_skill_are_read() -> None:
    entries = [{"user_id": "a", "rating": 3, "created_at": "2026-01-01T00:00:00Z"}, {"rating": 0}, None, {"rating": 5}]
    first, last = parse_skill_ratings(json.dumps({"name": "x", "ratings": entries}).encode())
    assert (first.user_id, first.stars, first.rated_at) == ("a", 3, datetime(2026, 1, 1, tzinfo=UTC))
    assert (last.user_id, last.rated_at) == (None, None)
    assert parse_skill_ratings(b'{"name": "x"}') == ()
    for body in (b"[]", b'{"ratings": 3}'):
        with pytest.raises(BadResponse):
            parse_skill_ratings(body)


@given(st.binary(max_size=40))
def test_no_bytes_break_the_readers(body: bytes) -> None:
    parse_conflict(body, skill_id="s", user_id="a")
    for read in (parse_receipt, parse_skill_ratings):
        try:
            read(body)
        except BadResponse:
            continue


@pytest.mark.parametrize(
    ("entry", "stars", "comment"),
    [
        (b'{"rating": 5.0, "comment": "fine"}', 5, "fine"),
        (b'{"rating": "4"}', 4, None),
        (b'{"rating": 3, "comment": "%s"}' % (b"x" * 1500), 3, "x" * 1500),
        (b'{"rating": 3, "comment": "bell \\u0007"}', 3, "bell \x07"),
        (b'{"rating": 3, "comment": "half \\ud83d"}', 3, "half \N{REPLACEMENT CHARACTER}"),
        (b'{"rating": 3, "comment": "latin \xe9"}', 3, "latin \N{REPLACEMENT CHARACTER}"),
        (b'{"rating": 3, "weight": 1e400}', 3, None),
        (b'{"rating": 4.5}', None, None),
        (b'{"rating": 1e400}', None, None),
        (b'{"rating": 6}', None, None),
    ],
)
def test_stored_ratings_are_read_by_more_lenient_rules(entry: bytes, stars: int | None, comment: str | None) -> None:
    found = parse_conflict(entry, skill_id="s", user_id="ann")
    assert (found and found.stars, found and found.comment) == (stars, comment)
    other = b'{"user_id": "bob", "rating": 1}'
    shown = parse_skill_ratings(b'{"name": "s", "ratings": [' + entry + b", " + other + b"]}")
    assert [rating.stars for rating in shown] == ([1] if stars is None else [stars, 1])


def test_a_receipt_needs_only_its_id() -> None:
    receipt = parse_receipt(b'{"rating_id": "r", "average_rating": 1e400, "comment": "\\ud800"}')
    assert (receipt.rating_id, receipt.average) == ("r", None)
