"""Every parser of external bytes returns a typed value or raises its typed error, and nothing else."""

from __future__ import annotations

import gzip
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from inputs import IDS, broken, categories, doubled_skills, frames, fuzzing, pages, skills, spelled, tried, values

from atom_saas_sync.core.canonical import decode_object, json_text, same
from atom_saas_sync.core.incoming.categories import parse_categories
from atom_saas_sync.core.incoming.fields import id_problem, without_malformed
from atom_saas_sync.core.incoming.messages import Malformed, Message, parse_frame
from atom_saas_sync.core.incoming.ratings import parse_conflict, parse_receipt, parse_skill_ratings
from atom_saas_sync.core.incoming.skills import parse_skill_page, read_skill
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.marketplace.bodies import read_body
from atom_saas_sync.model import MESSAGE_TYPES, InvalidItem, SkillVersion

LIMIT = 1024 * 1024


def check_told(error: BadResponse) -> None:
    assert error.message.isprintable()
    assert len(error.message) < 400


def check_frame(frame: str | bytes) -> None:
    parsed = parse_frame(frame)
    if isinstance(parsed, Malformed):
        assert parsed.reason.isprintable()
        assert len(parsed.reason) < 200
        return
    assert isinstance(parsed, Message)
    assert parsed.type in MESSAGE_TYPES
    if parsed.brings_news:
        assert parsed.type == "category_update" or id_problem(parsed.key) is None
        assert json.loads(parsed.text) is not None
        parsed.text.encode()
    for moment in (parsed.sent_at, parsed.updated_at):
        assert moment is None or moment.utcoffset() is not None


@fuzzing(300)
@given(frames())
def test_messages_of_every_shape(frame: str) -> None:
    tried["messages of every shape"] += 1
    check_frame(frame)


@fuzzing(300)
@given(broken(frames().map(lambda text: text.encode(errors="surrogatepass"))))
@example(b'{"type":"skill_update","data":' + b"[" * 10_000 + b"]" * 10_000 + b"}")
@example(b"[" * 10_000)
@example(b'{"a":' * 10_000)
def test_messages_of_broken_bytes(frame: bytes) -> None:
    tried["messages of broken bytes"] += 1
    check_frame(frame)
    check_frame(frame.decode(errors="replace"))
    check_frame(frame.decode(errors="surrogateescape"))


def check_page(body: bytes) -> None:
    try:
        page = parse_skill_page(body, page=1, page_size=1000)
    except BadResponse as error:
        check_told(error)
        return
    assert page.total is None or isinstance(page.total, int)
    for raw in map(bytes, page.items or ()):
        item = read_skill(raw)
        if isinstance(item, InvalidItem):
            assert item.reason
            continue
        assert isinstance(item, SkillVersion)
        assert id_problem(item.skill_id) is None
        fields = decode_object(item.text)
        assert fields is not None
        # Text that is not stored as received is re-encoded, with the same content except for dropped values.
        assert item.text.encode() == raw or item.text == json_text(fields)
        assert same(fields, without_malformed(json.loads(raw))[0])
        assert isinstance(json.loads(item.text), dict)
        assert len(item.wire_digest) == len(item.content_digest) == len(item.exec_digest) == 32


@fuzzing(300)
@given(pages())
def test_pages_of_every_shape(body: bytes) -> None:
    tried["pages of every shape"] += 1
    check_page(body)


@fuzzing(300)
@given(broken(pages()))
@example(b'{"skills":[' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"]}")
@example(b'{"skills":[{"skill_id":"a","name":"\\ud800"},{"skill_id":"b","name":"b"}]}')
def test_pages_of_broken_bytes(body: bytes) -> None:
    tried["pages of broken bytes"] += 1
    check_page(body)


@fuzzing(200)
@given(doubled_skills)
@example(b'{"skill_id":"known-0","name":"n","code":"EVIL()","code":"good()"}')
@example(b'{"skill_id":"known-0","name":"n","metadata":{"a":[{"code":1,"c\\u006fde":2}]}}')
def test_skills_with_keys_twice(body: bytes) -> None:
    """SQL readers see the text that the digests were computed from, or nothing."""
    tried["skills with keys twice"] += 1
    item = read_skill(body)
    message = parse_frame(f'{{"type":"skill_update","data":{body.decode()}}}')
    twice = has_a_key_twice(body)
    assert isinstance(message, Malformed) == isinstance(item, InvalidItem)
    if isinstance(item, InvalidItem) or isinstance(message, Malformed):
        return
    assert not twice
    for text in (item.text, message.text):
        fields = json.loads(text)
        for name in fields:
            seen = SQLITE.execute("SELECT json_extract(?, '$.' || json_quote(?))", (text, name)).fetchone()[0]
            value = fields[name]
            assert same(json.loads(seen) if isinstance(value, list | dict) else seen, value)


SQLITE = sqlite3.connect(":memory:")


def has_a_key_twice(body: bytes) -> bool:
    found = False

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal found
        found = found or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    json.loads(body, object_pairs_hook=look)
    return found


def test_one_item_that_is_broken_costs_no_other() -> None:
    good = {"skill_id": "good", "name": "good"}
    for odd in ('{"skill_id":"odd","name":"\\ud800"}', '{"x":' + "[" * 5000 + "]" * 5000 + "}", "17", '"text"', "null"):
        page = parse_skill_page(
            f'{{"skills":[{json.dumps(good)},{odd},{json.dumps(good)}],"total":3}}'.encode(), page=1, page_size=1000
        )
        read = [read_skill(bytes(raw)) for raw in page.items or ()]
        assert [type(each) for each in read] == [SkillVersion, InvalidItem, SkillVersion], odd


@fuzzing(200)
@given(st.one_of(categories(), broken(categories())))
def test_categories(body: bytes) -> None:
    tried["categories"] += 1
    try:
        found, invalid = parse_categories(body)
    except BadResponse:
        return
    assert all(each.name and isinstance(json.loads(each.text), dict | str) for each in found)
    assert all(each.reason for each in invalid)


@st.composite
def receipts(draw: st.DrawFn) -> bytes:
    """Draw a response to a rating, the ratings of a skill, or something else."""
    names = ("rating_id", "id", "skill_id", "user_id", "rating", "updated_at", "average_rating", "rating_count")
    rating = st.dictionaries(st.sampled_from(names), st.one_of(values, st.sampled_from(IDS), st.integers(0, 6)))
    form = draw(st.one_of(rating, st.fixed_dictionaries({"ratings": st.lists(rating, max_size=3)}), skills))
    return spelled(form, draw(st.integers(0, 30))).encode(errors="surrogatepass")


@fuzzing(200)
@given(st.one_of(receipts(), broken(receipts())))
def test_answers_to_ratings(body: bytes) -> None:
    tried["answers to ratings"] += 1
    parsers: tuple[Callable[[bytes], Any], ...] = (
        parse_receipt,
        parse_skill_ratings,
        lambda text: parse_conflict(text, skill_id="known-0", user_id="u"),
    )
    for parse in parsers:
        try:
            parse(body)
        except BadResponse as error:
            check_told(error)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


@fuzzing(200)
@given(st.sampled_from(list(PACKED)), st.binary(max_size=2000), st.data(), st.sampled_from([1, 64, 10_000]))
def test_bodies_with_broken_compression(encoding: str, body: bytes, data: st.DataObject, chunk: int) -> None:
    tried["bodies whose packing is broken"] += 1
    packed = data.draw(broken(st.just(PACKED[encoding](body))))
    named = data.draw(st.sampled_from([*PACKED, "br", "GZIP ", "gzip, zstd", "x" * 300]))
    response = httpx.Response(
        200,
        headers={"content-encoding": named},
        stream=httpx.ByteStream(packed)
        if chunk == 10_000
        else _Chunks([packed[start : start + chunk] for start in range(0, len(packed), chunk)]),
    )
    try:
        unpacked = read_body(response, limit=LIMIT, what="GET x")
    except BadResponse as error:
        check_told(error)
    else:
        assert len(unpacked) <= LIMIT


class _Chunks(httpx.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)
