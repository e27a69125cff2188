"""Odd but legal responses, and errors: the status decides, then the headers, then the body."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import pytest
import zstandard
from conftest import Machine
from scripted_market import PAGE, SKILLS, Request, ScriptedMarket, answer, scripted_market

from atom_saas_sync.errors import ApiError, BadResponse, MarketplaceError, RateLimited, TokenRefused, TooLarge
from atom_saas_sync.marketplace.requests import MAX_BODY_BYTES, MAX_REDIRECTS

LIST = "/api/v1/skills"
TEXT = json.dumps(PAGE).encode()
BOM = b"\xef\xbb\xbf"
zstd = zstandard.ZstdCompressor().compress
zstd_of_unknown_size = zstandard.ZstdCompressor(write_content_size=False).compress


@pytest.fixture
def market() -> Iterator[ScriptedMarket]:
    with scripted_market() as market:
        yield market


def names(machine: Machine, market: ScriptedMarket) -> int:
    """Fetch the list as a client, and return how many skills it shows."""
    with machine.client(url=market.url) as (client, _):
        return client.list_skills(1, 1000).size


# Bodies


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "deflate", "no-such-thing"])
def test_not_modified_has_no_body_to_decode(machine: Machine, market: ScriptedMarket, coding: str) -> None:
    def handle(request: Request, _connection: socket.socket) -> bytes:
        if "if-none-match" in request.headers:
            return answer(status=304, ETag='"1"', Content_Encoding=coding)
        return answer(PAGE, ETag='"1"')

    market.on(LIST, handle)
    market.on("/api/v1/categories", handle)
    first, second = (machine.command("sync", "skills", "--json", "--no-categories", **market.variables) for _ in "12")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert json.loads(second.stdout)["not_modified"] == 1
    assert [each.headers.get("if-none-match") for each in market.asked(LIST)] == [None, '"1"']


def test_not_modified_for_one_skill_is_not_a_deletion(machine: Machine, market: ScriptedMarket) -> None:
    """A 304 without a conditional request: a broken cache in between, or a malicious marketplace."""
    market.on(LIST, answer(PAGE))
    assert machine.command("sync", "skills", "--no-categories", **market.variables).returncode == 0
    before = machine.cached()
    market.on(LIST, answer({**PAGE, "skills": SKILLS[1:], "total": len(SKILLS) - 1}))
    market.on(f"{LIST}/", answer(status=304))
    result = machine.command("sync", "skills", "--no-categories", **market.variables)
    assert (result.returncode, machine.cached()) == (65, before)
    assert "'not modified' (304), although the request had no condition" in result.stderr


def test_not_modified_is_invalid_for_an_unconditional_request(machine: Machine, market: ScriptedMarket) -> None:
    market.on("/api/v1/categories", answer(status=304))
    market.on(LIST, answer(status=304))
    with machine.client(url=market.url) as (client, _):
        for ask in (
            client.list_categories,
            lambda: client.list_skills(1, 10),
            lambda: client.get_skill("a"),
            lambda: client.ratings_of("a"),
        ):
            with pytest.raises(BadResponse, match="although the request had no condition"):
                ask()


@pytest.mark.parametrize("coding", ["br", "gzip", "zstd"])
def test_an_empty_body_is_not_decoded(machine: Machine, market: ScriptedMarket, coding: str) -> None:
    market.on(LIST, answer(Content_Encoding=coding))
    with pytest.raises(BadResponse, match="the list of skills is not"):
        names(machine, market)


BODIES = {
    "zstd of two frames": ("zstd", zstd(TEXT[:50]) + zstd(TEXT[50:])),
    "zstd of an unknown size in three frames": ("zstd", b"".join(map(zstd_of_unknown_size, (TEXT[:9], b"", TEXT[9:])))),
    "zstd with a skippable frame": ("ZSTD", b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zstd(TEXT)),
    "zstd and padding": ("zstd", zstd(TEXT) + bytes(512)),
    "gzip of two members": ("gzip", gzip.compress(TEXT[:50]) + gzip.compress(TEXT[50:])),
    "gzip and zeros": ("gzip", gzip.compress(TEXT) + bytes(512)),
    "gzip and other padding": ("gzip", gzip.compress(TEXT) + b"\r\npadding"),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "identity": ("identity", TEXT),
    "gzip and identity": ("identity, gzip", gzip.compress(TEXT)),
    "a byte order mark": ("", BOM + TEXT),
    "a byte order mark within gzip": ("Gzip", gzip.compress(BOM + TEXT)),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_a_careful_client_reads(machine: Machine, market: ScriptedMarket, name: str) -> None:
    coding, body = BODIES[name]
    market.on(LIST, answer(body, Content_Encoding=coding))
    assert names(machine, market) == len(SKILLS)


REFUSED = {
    "brotli": ("br", b"\x0b\x02\x80{}\x03", "unknown Content-Encoding 'br'"),
    "deflate": ("deflate", zlib.compress(TEXT), "unknown Content-Encoding 'deflate'"),
    "gzip that ends too early": ("gzip", gzip.compress(TEXT)[:-9], "not valid gzip: it is truncated"),
    "zstd that ends too early": ("zstd", zstd_of_unknown_size(TEXT)[:-9], "not valid zstd: it is truncated"),
    "a second frame that ends too early": ("zstd", zstd(TEXT) + zstd(TEXT)[:-9], "not valid zstd: it is truncated"),
    "not gzip at all": ("gzip", TEXT, "not valid gzip"),
    "one within the other": ("gzip, zstd", zstd(gzip.compress(TEXT)), "unknown Content-Encoding 'gzip, zstd'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bodies_that_are_refused_are_refused_by_name(machine: Machine, market: ScriptedMarket, name: str) -> None:
    coding, body, words = REFUSED[name]
    market.on(LIST, answer(body, Content_Encoding=coding))
    with pytest.raises(BadResponse, match=words):
        names(machine, market)


# Errors


ERRORS: list[tuple[int, type[MarketplaceError], int]] = [
    (401, TokenRefused, 1),
    (403, TokenRefused, 1),
    (400, ApiError, 1),
    (422, ApiError, 1),
    (429, RateLimited, 4),
    (503, ApiError, 4),
]
BROKEN: dict[str, Any] = {
    "brotli": lambda status: answer(b"\x0b\x02\x80{}\x03", status, Content_Encoding="br", Retry_After="9"),
    "broken gzip": lambda status: answer(b"\x1f\x8bno", status, Content_Encoding="gzip", Retry_After="9"),
    "cut short": lambda status: answer(b"x" * 99, status, Retry_After="9")[:-50],
    "too large": lambda status: answer(b"x" * 200_000, status, Retry_After="9"),
    "not UTF-8": lambda status: answer(b"\xff\xfe", status, Retry_After="9"),
}


@pytest.mark.parametrize(("status", "kind", "requests"), ERRORS)
def test_the_status_counts_though_the_body_is_broken(
    machine: Machine, market: ScriptedMarket, status: int, kind: type[MarketplaceError], requests: int
) -> None:
    for body in BROKEN.values():
        market.requests.clear()
        machine.clock.slept.clear()
        market.on(LIST, body(status))
        with machine.client(url=market.url) as (client, _), pytest.raises(kind, match=str(status)):
            client.list_skills(1, 10)
        assert len(market.requests) == requests
        assert machine.clock.slept == [9.0] * (requests - 1)


def test_a_refused_token_is_reported_before_the_body_arrives(machine: Machine, market: ScriptedMarket) -> None:
    def handle(_request: Request, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\n{")
        market.over.wait(20)

    market.on("/api/v1/categories", handle)
    ended = machine.command("sync", "skills", "--json", **market.variables)
    assert ended.returncode == 77
    assert len(market.requests) == 1


WORDS = {
    "a text": ({"error": "comment is too long"}, "comment is too long"),
    "an object": ({"error": {"code": 7, "message": "comment is too long"}}, "comment is too long"),
    "a list": ({"detail": [{"loc": ["body"], "msg": "comment is too long"}]}, "comment is too long"),
    "lines and escapes": ({"message": "a\n\x1b[31mb\u202ec"}, "a [31mbc"),
    "plain text": (b"comment is too long\nand more", "comment is too long"),
    "text in another encoding": ("Käse is too long".encode("latin-1"), "K\N{REPLACEMENT CHARACTER}se is too long"),
    "about a field": ({"errors": {"comment": ["is too long", "is rude"]}}, "comment: is too long"),
    "several": (["comment is too long", "and rude"], "comment is too long"),
    "a code": ({"status": 422, "code": "COMMENT_TOO_LONG"}, "COMMENT_TOO_LONG"),
    "OAuth": ({"error": "invalid_request", "error_description": "no audience"}, "no audience"),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("status", [422, 503])
def test_the_marketplace_s_error_message_is_included(
    machine: Machine, market: ScriptedMarket, name: str, status: int
) -> None:
    body, words = WORDS[name]
    market.on(LIST, answer(body, status))
    with machine.client(url=market.url) as (client, _), pytest.raises(ApiError) as failed:
        client.list_skills(1, 10)
    assert failed.value.message == f'GET {LIST}: the marketplace answered {status}: "{words}"'
    assert failed.value.hint


def test_its_words_are_cut_and_hold_no_token(machine: Machine, market: ScriptedMarket) -> None:
    token = machine.sandbox.token
    market.on(LIST, answer({"error": f"no {token[:5]}\u200b{token[5:]} {'x' * 500}"}, 422))
    with machine.client(url=market.url) as (client, _), pytest.raises(ApiError) as failed:
        client.list_skills(1, 10)
    assert token not in failed.value.message
    assert "no ******** xxx" in failed.value.message and len(failed.value.message) < 250


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in</title>", BOM + b"\n <html>"])
@pytest.mark.parametrize("status", [200, 403])
def test_a_web_page_in_place_of_json_says_what_to_do(
    machine: Machine, market: ScriptedMarket, page: bytes, status: int
) -> None:
    market.on(LIST, answer(page, status, Content_Type="text/html"))
    with pytest.raises(BadResponse if status == 200 else TokenRefused) as failed:
        names(machine, market)
    assert failed.value.hint is not None
    assert market.url in failed.value.hint and "ATOM_SAAS_API_URL" in failed.value.hint


# Redirects


LOCATIONS = [
    "data:,x",
    "mailto:a",
    "http:x",
    "https:x",
    "a:b",
    "http:\\\\x",
    "http://",
    "http://[::1",
    "http://a:99999/",
    "//",
    "http://\u00e9.\u2024/",
    "javascript:alert(1)",
    "",
    "?\x01",
    "http://user:pass@127.0.0.1:1/",
    "/" + "x" * 70_000,
]


@pytest.mark.parametrize("status", [301, 308])
def test_a_redirect_to_nowhere_is_a_bad_response(machine: Machine, market: ScriptedMarket, status: int) -> None:
    with machine.client(url=market.url) as (client, _):
        for location in LOCATIONS:
            said = f"HTTP/1.1 {status} Said\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            market.on(LIST, said.encode())
            with pytest.raises(MarketplaceError) as failed:
                client.list_skills(1, 10)
            assert failed.value.exit_code in {65, 69}
            assert failed.value.message.isprintable()


@pytest.mark.parametrize("location", ["", "Location: \r\n", "Location:  \t \r\n"], ids=["none", "empty", "blank"])
def test_a_redirect_without_a_target_is_not_followed(machine: Machine, market: ScriptedMarket, location: str) -> None:
    """Joined with the address of the request, it would be the same address again."""
    market.on(LIST, f"HTTP/1.1 302 Found\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    with machine.client(url=market.url) as (client, _), pytest.raises(BadResponse, match="to an invalid address"):
        client.list_skills(1, 10)
    assert len(market.asked(LIST)) == 1


@pytest.mark.parametrize("skill_id", ["a/b", "../categories", "a?page=2", "a#b", "a%2Fb", "a b", "ä"])
def test_an_id_stays_one_segment_of_the_path(machine: Machine, market: ScriptedMarket, skill_id: str) -> None:
    with machine.client(url=market.url) as (client, _):
        client.get_skill(skill_id)
    (asked,) = market.requests
    segment = asked.path.removeprefix(f"{LIST}/")
    assert not set(segment) & set("/?#. ")
    assert unquote(segment) == skill_id


def test_redirects_without_end_are_left(machine: Machine, market: ScriptedMarket) -> None:
    market.on(LIST, answer(status=302, Location=LIST))
    with machine.client(url=market.url) as (client, _), pytest.raises(BadResponse) as failed:
        client.list_skills(1, 10)
    assert failed.value.message == f"GET {LIST}: more than {MAX_REDIRECTS} redirects"
    assert len(market.asked(LIST)) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_body_one_byte_too_large_is_refused(machine: Machine, market: ScriptedMarket, beyond: int) -> None:
    market.on(LIST, answer(json.dumps(PAGE).encode().ljust(MAX_BODY_BYTES + beyond)))
    with machine.client(url=market.url) as (client, _), pytest.raises(TooLarge) if beyond else nullcontext():
        assert client.list_skills(1, 10).items is not None


@pytest.mark.parametrize("location", ["data:,x", "http:x"])
def test_a_malformed_redirect_causes_no_traceback_in_sync_or_doctor(
    machine: Machine, market: ScriptedMarket, location: str
) -> None:
    for beginning in ("/", LIST, "/api/v1/categories"):
        market.on(beginning, answer(status=302, Location=location))
    synced = machine.command("sync", "skills", "--json", **market.variables)
    assert synced.returncode == 65 and json.loads(synced.stdout)["error"]["type"] == "bad_response"
    examined = machine.command("doctor", "--json", **market.variables)
    assert examined.returncode == 1 and json.loads(examined.stdout)["findings"]
    assert "Traceback" not in synced.stderr + examined.stderr
    assert "running" not in {run.status for run in machine.status().runs}


# Validators


@pytest.mark.parametrize("etag", ['"' + "a" * 60_000 + '"', '"' + "a" * 1_023 + '"', '"\u00e9"', "*", '"a" , *'])
def test_an_etag_that_cannot_be_sent_back_is_ignored(machine: Machine, market: ScriptedMarket, etag: str) -> None:
    market.on(LIST, answer(PAGE, ETag=etag))
    with machine.client(url=market.url) as (client, _):
        assert client.list_skills(1, 10).etag is None


def test_a_stored_etag_that_is_too_long_is_not_sent(machine: Machine, market: ScriptedMarket) -> None:
    with machine.client(url=market.url) as (client, _):
        client.list_skills(1, 10, '"' + "a" * 60_000 + '"')
        client.list_skills(1, 10, '"' + "a" * 900 + '"')
    assert ["if-none-match" in each.headers for each in market.requests] == [False, True]


@pytest.mark.parametrize("status", [400, 413, 431])
def test_a_request_that_is_refused_with_its_validator_is_sent_without(
    machine: Machine, market: ScriptedMarket, status: int
) -> None:
    def handle(request: Request, _connection: socket.socket) -> bytes:
        return answer(status=status) if "if-none-match" in request.headers else answer(PAGE, ETag='"2"')

    market.on(LIST, handle)
    with machine.client(url=market.url) as (client, _):
        assert client.list_skills(1, 10, '"1"').etag == '"2"'
        market.on(LIST, answer(status=status))
        with pytest.raises(ApiError, match=str(status)):
            client.list_skills(1, 10, '"1"')
    assert ["if-none-match" in each.headers for each in market.requests] == [True, False, True, False]


# Pauses


def date(**ahead: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(**ahead), usegmt=True)


@pytest.mark.parametrize("retry_after", ["0", "-5", "-0", "", "soon", "0.2", "an hour ago", "nan", "1e9"])
@pytest.mark.parametrize("status", [429, 503])
def test_our_own_pause_is_the_shortest(machine: Machine, market: ScriptedMarket, retry_after: str, status: int) -> None:
    asked = date(hours=-1) if retry_after == "an hour ago" else retry_after
    market.on(LIST, answer(status=status, Retry_After=asked, Date=date()))
    with machine.client(url=market.url) as (client, _), pytest.raises(MarketplaceError):
        client.list_skills(1, 10)
    assert machine.clock.slept == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(("retry_after", "slept"), [("3", [3, 3, 4]), (" 2.5 ", [2, 2, 4]), ("9" * 400, [120] * 3)])
def test_a_longer_pause_that_is_asked_for_is_kept_up_to_two_minutes(
    machine: Machine, market: ScriptedMarket, retry_after: str, slept: list[int]
) -> None:
    market.on(LIST, answer(status=503, Retry_After=retry_after))
    with machine.client(url=market.url) as (client, _), pytest.raises(MarketplaceError):
        client.list_skills(1, 10)
    assert machine.clock.slept == slept
