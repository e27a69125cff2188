"""Each fault has the effect on the wire that its name says."""

from __future__ import annotations

import gzip
import io
import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
import zstandard

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox import Fault, Sandbox
from atom_saas_sync.sandbox.faults import INVALID_ITEMS, KINDS, parse_fault

LIST = "/api/v1/skills"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(skills=30) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {sandbox.token}", "accept-encoding": "identity"}
    with httpx.Client(base_url=sandbox.url, headers=headers, timeout=60) as client:
        yield client


def statuses(client: httpx.Client, count: int, path: str = LIST) -> list[int]:
    return [client.get(path).status_code for _ in range(count)]


# Where and how often


def test_times_and_after_count_hits(sandbox: Sandbox, client: httpx.Client) -> None:
    number = sandbox.fault("error", endpoint="list", status=503, after=1, times=2)
    assert statuses(client, 5) == [200, 503, 503, 200, 200]
    assert sandbox.faults()[number][1] == 2


def test_a_fault_applies_only_where_configured(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("error", endpoint="list", page=2)
    sandbox.fault("error", endpoint="skill", skill_id=sandbox.skill_ids()[0], status=502)
    assert client.get(LIST, params={"page": 1}).status_code == 200
    assert client.get(LIST, params={"page": 2}).status_code == 500
    assert [client.get(f"{LIST}/{skill_id}").status_code for skill_id in sandbox.skill_ids()[:2]] == [502, 200]
    assert client.get("/health").status_code == 200


def test_probability_is_deterministic(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("error", probability=0.5, seed=7)
    first = statuses(client, 20)
    assert {200, 500} == set(first)
    sandbox.clear_faults()
    sandbox.fault("error", probability=0.5, seed=7)
    assert statuses(client, 20) == first


def test_clearing_ends_it(sandbox: Sandbox, client: httpx.Client) -> None:
    number = sandbox.fault("error")
    sandbox.fault("error", endpoint="health", status=503)
    sandbox.clear_faults(number)
    assert client.get(LIST).status_code == 200
    assert client.get("/health").json()["status"] == "unhealthy"
    sandbox.clear_faults()
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "sabotage"},
        {"kind": "error", "endpoint": "cellar"},
        {"kind": "not_json", "value": "poem"},
        {"kind": "invalid_items", "value": "no_id+ghost"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Fault(**wrong)


def test_faults_can_be_written_as_text() -> None:
    assert parse_fault("error:endpoint=list,status=503,times=2,retry_after=7") == Fault(
        "error", endpoint="list", status=503, times=2, retry_after="7"
    )
    assert parse_fault("delay:seconds=0.5") == Fault("delay", seconds=0.5)
    for wrong in ("error:status=high", "error:colour=red", "error:status", ""):
        with pytest.raises(UsageError):
            parse_fault(wrong)


# Errors


def test_errors_carry_retry_after_in_both_forms(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("error", status=429, retry_after=9, times=1)
    sandbox.fault("error", status=503, retry_after="date:60", after=0, times=2)
    assert client.get(LIST).headers["retry-after"] == "9"
    answer = client.get(LIST)
    assert answer.status_code == 503
    wait = parsedate_to_datetime(answer.headers["retry-after"]) - sandbox.state.now()
    assert 50 < wait.total_seconds() <= 61


def test_only_put_can_be_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("error", endpoint="ratings", method="PUT", status=501)
    rating = {"skill_id": sandbox.skill_ids()[0], "rating": 3, "comment": None, "user_id": "ann"}
    rating_id = client.post("/ratings", json=rating).json()["rating_id"]
    assert client.put(f"/ratings/{rating_id}", json=rating).status_code == 501


# Slow and broken connections


def test_delay_comes_before_the_answer(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("delay", seconds=0.2)
    start = time.monotonic()
    assert client.get("/health").status_code == 200
    assert time.monotonic() - start >= 0.2


def test_drip_sends_the_body_slowly(sandbox: Sandbox, client: httpx.Client) -> None:
    size = len(client.get("/health").content)
    sandbox.fault("drip", amount=size * 4)
    start = time.monotonic()
    assert client.get("/health").json()["status"] == "healthy"
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("value", ["", "body"])
def test_hang_never_answers_and_does_not_hold_up_the_end(sandbox: Sandbox, client: httpx.Client, value: str) -> None:
    sandbox.fault("hang", endpoint="list", value=value)
    with pytest.raises(httpx.ReadTimeout):
        client.get(LIST, timeout=0.1)
    assert client.get("/health").status_code == 200
    start = time.monotonic()
    sandbox.stop()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("value", ["", "reset"])
def test_drop_closes_without_an_answer(sandbox: Sandbox, client: httpx.Client, value: str) -> None:
    sandbox.fault("drop", value=value, times=1)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)) as caught:
        client.get(LIST)
    assert isinstance(caught.value, httpx.ReadError) == (value == "reset")
    assert client.get(LIST).status_code == 200
    assert sandbox.requests("list")[0].status == 0


@pytest.mark.parametrize("kind", ["drop_body", "truncated"])
def test_a_body_can_end_in_the_middle(sandbox: Sandbox, client: httpx.Client, kind: str) -> None:
    whole = len(client.get(LIST).content)
    sandbox.fault(kind, times=1)
    received = 0
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)), client.stream("GET", LIST) as answer:  # noqa: PT012
        assert answer.headers["content-length"] == str(whole)
        for chunk in answer.iter_raw():
            received += len(chunk)
    assert 0 < received < whole
    assert client.get(LIST).status_code == 200


def test_a_rating_can_be_stored_though_the_answer_is_lost(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("store_then_drop", endpoint="ratings", times=1)
    rating = {"skill_id": sandbox.skill_ids()[0], "rating": 3, "comment": None, "user_id": "ann"}
    key = {"idempotency-key": "k"}
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/ratings", json=rating, headers=key)
    [stored] = sandbox.ratings()
    answer = client.post("/ratings", json=rating, headers=key)
    assert (answer.status_code, answer.json()["rating_id"]) == (201, stored["rating_id"])
    assert len(sandbox.ratings()) == 1


# Invalid bodies


@pytest.mark.parametrize("value", ["html", "empty", "cut", "bad_utf8", "deep"])
def test_bodies_that_are_not_json(sandbox: Sandbox, client: httpx.Client, value: str) -> None:
    sandbox.fault("not_json", value=value)
    answer = client.get(LIST)
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(answer.content))
    with pytest.raises((ValueError, RecursionError)):
        json.loads(answer.content)


def test_nan_is_not_valid_json(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("not_json", value="nan")
    assert b"NaN" in client.get(LIST).content


@pytest.mark.parametrize(
    ("value", "check"),
    [
        ("list", lambda document: isinstance(document, list)),
        ("missing", lambda document: "skills" not in document),
        ("not_list", lambda document: isinstance(document["skills"], dict)),
        ("null", lambda document: document is None),
        ("text", lambda document: document == "skills"),
    ],
)
def test_wrong_forms(sandbox: Sandbox, client: httpx.Client, value: str, check: Any) -> None:
    sandbox.fault("wrong_form", value=value)
    assert check(client.get(LIST).json())


def test_the_list_can_be_empty(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("empty_list")
    assert client.get(LIST).json() == {"skills": []}


def test_totals_can_be_wrong(sandbox: Sandbox, client: httpx.Client) -> None:
    def total_with(key: str, value: str, amount: int = 0) -> Any:
        sandbox.clear_faults()
        sandbox.fault(key, value=value, amount=amount)
        return client.get(LIST).json().get(key)

    assert total_with("total", "missing") is None
    assert total_with("total", "wrong", 5) == 35
    assert total_with("total", "negative") == -1
    assert total_with("total", "text") == "many"
    assert total_with("total", "drifting", 2) == 32
    assert client.get(LIST).json()["total"] == 34
    assert total_with("total_pages", "wrong") == 4
    assert total_with("total_pages", "missing") is None


def test_the_server_may_cap_pages(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("page_cap", amount=7)
    document = client.get(LIST, params={"page": 2, "page_size": 1000}).json()
    assert (len(document["skills"]), document["page_size"], document["total_pages"]) == (7, 7, 5)
    assert document["skills"][0]["skill_id"] == sandbox.skill_ids()[7]


@pytest.mark.parametrize("value", ["", "length"])
def test_a_body_can_be_too_large(sandbox: Sandbox, client: httpx.Client, value: str) -> None:
    sandbox.fault("oversized", amount=3_000_000, value=value)
    answer = client.get(LIST)
    assert len(answer.content) == 3_000_000
    assert answer.json()["skills"] == []
    assert ("content-length" in answer.headers) == (value == "length")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_small_body_can_be_a_bomb(sandbox: Sandbox, client: httpx.Client, coding: str) -> None:
    amount = 8 * 1024 * 1024
    sandbox.fault("bomb", value=coding, amount=amount)
    with client.stream("GET", LIST) as answer:
        assert answer.headers["content-encoding"] == coding
        packed = b"".join(answer.iter_raw())
    if coding == "gzip":
        unpacked = gzip.decompress(packed)
    else:
        unpacked = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
    assert len(packed) < 20_000
    assert len(unpacked) >= amount
    assert json.loads(unpacked) == {"skills": [], "total": 0}


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br"])
def test_the_encoding_can_be_a_lie(sandbox: Sandbox, client: httpx.Client, coding: str) -> None:
    sandbox.fault("lying_encoding", value=coding)
    with client.stream("GET", LIST) as answer:
        assert answer.headers["content-encoding"] == coding
        assert json.loads(b"".join(answer.iter_raw()))["total"] == 30


def test_redirects_within_the_origin_lead_to_the_answer(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("redirect", status=307)
    answer = client.get(LIST, params={"page": 2, "page_size": 10})
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("/")
    there = client.get(answer.headers["location"])
    assert there.json()["skills"][0]["skill_id"] == sandbox.skill_ids()[10]


def test_redirects_may_leave_the_origin(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("redirect", value="other", times=1)
    assert client.get(LIST).headers["location"] == f"http://localhost:{sandbox.port}/_redirected{LIST}"
    sandbox.fault("redirect", location="https://evil.example/")
    assert client.get(LIST).headers["location"] == f"https://evil.example/_redirected{LIST}"


@pytest.mark.parametrize("name", INVALID_ITEMS)
def test_each_invalid_item_comes_before_the_real_ones(sandbox: Sandbox, client: httpx.Client, name: str) -> None:
    sandbox.fault("invalid_items", value=name)
    body = client.get(LIST).content
    if name == "deep":
        assert b"[" * 100_000 in body
        return
    first, *rest = json.loads(body)["skills"]
    assert len(rest) == 30
    good = isinstance(first, dict) and isinstance(first.get("skill_id"), str) and isinstance(first.get("name"), str)
    assert good == (
        name in ("id_empty", "id_dot", "id_dotdot", "id_control", "id_surrogate", "types", "surrogates", "huge")
    )


def test_broken_items_take_the_place_of_real_ones(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("broken_items", value="no_id+name_number")
    document = client.get(LIST).json()
    assert (len(document["skills"]), document["total"]) == (30, 30)
    assert document["skills"][2]["skill_id"] == sandbox.skill_ids()[2]


@pytest.mark.parametrize(("value", "seen"), [("add", 31), ("remove", 29)])
def test_the_list_can_drift_between_pages(sandbox: Sandbox, client: httpx.Client, value: str, seen: int) -> None:
    before = sandbox.skill_ids()
    sandbox.fault("drift", value=value, page=1, times=1)
    pages = [client.get(LIST, params={"page": page, "page_size": 10}).json() for page in (1, 2, 3, 4)]
    assert [pages[0]["total"], pages[1]["total"]] == [30, seen]
    walked = [skill["skill_id"] for page in pages for skill in page["skills"]]
    assert walked == (before[:10] + before[9:] if value == "add" else before[:10] + before[11:])


def test_a_rating_can_lack_its_id(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("no_rating_id")
    rating = {"skill_id": sandbox.skill_ids()[0], "rating": 3, "comment": None, "user_id": "ann"}
    answer = client.post("/ratings", json=rating)
    assert (answer.status_code, "rating_id" in answer.json()) == (201, False)


def test_a_conflict_can_have_other_forms(sandbox: Sandbox, client: httpx.Client) -> None:
    rating = {"skill_id": sandbox.skill_ids()[0], "rating": 3, "comment": None, "user_id": "ann"}
    client.post("/ratings", json=rating)
    sandbox.fault("conflict_form", value="nested", times=1)
    sandbox.fault("conflict_form", value="none", after=1)
    nested, none = client.post("/ratings", json=rating), client.post("/ratings", json=rating)
    assert (nested.status_code, nested.json()["rating"]["rating"]) == (409, 3)
    assert (none.status_code, "rating" in none.json()) == (409, False)


def test_older_servers_say_id(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("old_ids")
    first = sandbox.skill_ids()[0]
    assert client.get(LIST).json()["skills"][0]["id"] == first
    alone = client.get(f"{LIST}/{first}").json()
    assert (alone["id"], "skill_id" in alone) == (first, False)


def test_categories_can_have_the_other_list_form(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("other_list")
    assert isinstance(client.get("/api/v1/categories").json(), list)
    there = client.get("/skills/marketplace/categories", headers={"x-api-token": sandbox.token})
    assert len(there.json()["categories"]) == 24


def test_limit_headers_can_have_other_names_or_be_absent(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("limit_headers", value="ietf", times=1)
    sandbox.fault("limit_headers", value="none", after=1)
    headers = client.get("/health").headers
    assert (headers["ratelimit-limit"], "x-ratelimit-limit" in headers) == ("100000", False)
    assert 0 < int(headers["ratelimit-reset"]) <= 60
    assert not [name for name in client.get("/health").headers if "ratelimit" in name]


def test_every_kind_is_described() -> None:
    assert all(Fault(kind) and text for kind, text in KINDS.items())
