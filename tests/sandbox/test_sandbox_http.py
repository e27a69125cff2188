"""The sandbox's HTTP follows the contract (sections 2 and 3)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import httpx
import pytest

from atom_saas_sync.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(skills=250, seed=3) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer {sandbox.token}"}) as client:
        yield client


def walk(client: httpx.Client, page_size: int = 100) -> list[str]:
    found: list[str] = []
    for page in range(1, 1000):
        skills = client.get("/api/v1/skills", params={"page": page, "page_size": page_size}).json()["skills"]
        if not skills:
            break
        found += [skill["skill_id"] for skill in skills]
    return found


def test_a_walk_shows_every_skill_once_in_order(sandbox: Sandbox, client: httpx.Client) -> None:
    assert walk(client) == sandbox.skill_ids()
    document = client.get("/api/v1/skills", params={"page": 3, "page_size": 100}).json()
    assert (document["page"], document["page_size"], document["total"], document["total_pages"]) == (3, 100, 250, 3)
    assert len(document["skills"]) == 50


@pytest.mark.parametrize("path", ["/api/v1/skills", "/skills"])
def test_bearer_dialects_want_the_bearer_token(sandbox: Sandbox, path: str) -> None:
    good = {"authorization": f"Bearer {sandbox.token}"}
    assert httpx.get(sandbox.url + path, headers=good).status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-token": sandbox.token}):
        assert httpx.get(sandbox.url + path, headers=headers).status_code == 401


def test_mothership_has_its_own_header_paths_and_list_form(sandbox: Sandbox) -> None:
    skill_id = sandbox.skill_ids()[0]
    for base in (sandbox.url, sandbox.url + "/api/v1/marketplace"):
        with httpx.Client(base_url=base, headers={"x-api-token": sandbox.token}) as client:
            assert client.get("/skills/marketplace/skills").json()["total"] == 250
            assert client.get(f"/skills/marketplace/skills/{skill_id}").json()["skill_id"] == skill_id
            categories = client.get("/skills/marketplace/categories").json()
            assert isinstance(categories, list)
            assert len(categories) == 24
    bearer = {"authorization": f"Bearer {sandbox.token}"}
    assert httpx.get(f"{sandbox.url}/skills/marketplace/skills", headers=bearer).status_code == 401


def test_the_token_can_change_while_the_sandbox_runs(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.token = "at_saas_other"
    assert client.get("/skills").status_code == 401


def test_health_needs_no_token_and_says_sandbox(sandbox: Sandbox) -> None:
    answer = httpx.get(f"{sandbox.url}/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert answer.json()["sandbox"] is True


def test_one_skill_has_ratings_and_its_id_is_one_encoded_segment(sandbox: Sandbox, client: httpx.Client) -> None:
    for skill_id in ("a/b", "50%", "ünï", "a b?c#d", "...", "x%2Fy"):
        sandbox.put_skill({"skill_id": skill_id, "name": "odd id"})
        segment = "".join(f"%{byte:02X}" for byte in skill_id.encode())
        document = client.get(f"/api/v1/skills/{segment}").json()
        assert document["skill_id"] == skill_id
        assert document["ratings"] == []
    assert client.get("/api/v1/skills/nobody").status_code == 404
    assert client.get("/api/v1/skills/%2E%2E").status_code == 404


def test_categories_count_the_skills(client: httpx.Client) -> None:
    categories = client.get("/api/v1/categories").json()["categories"]
    assert len({category["name"] for category in categories}) == 24
    assert sum(category["skill_count"] for category in categories) == 250


def test_query_and_category_narrow_the_list(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.put_skill({"skill_id": "needle", "name": "A NEEDLE in hay", "category": "games"})
    found = client.get("/api/v1/skills", params={"query": "needle"}).json()
    assert [skill["skill_id"] for skill in found["skills"]] == ["needle"]
    assert found["total"] == 1
    games = client.get("/api/v1/skills", params={"category": "games"}).json()["skills"]
    assert {skill["category"] for skill in games} == {"games"}
    assert games[-1]["skill_id"] == "needle"


@pytest.mark.parametrize("query", [{"page": "0"}, {"page": "x"}, {"page_size": "0"}])
def test_senseless_pages_are_refused(client: httpx.Client, query: dict[str, str]) -> None:
    assert client.get("/api/v1/skills", params=query).status_code == 422


def test_page_size_is_capped_at_1000(client: httpx.Client) -> None:
    assert client.get("/api/v1/skills", params={"page_size": 5000}).json()["page_size"] == 1000


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("gzip;q=0, zstd;q=0", None),
        ("identity", None),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("br", None),
        ("gzip;q=nonsense", None),
    ],
)
def test_compression_follows_accept_encoding(client: httpx.Client, accepted: str, coding: str | None) -> None:
    answer = client.get("/api/v1/skills", headers={"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert answer.json()["total"] == 250
    assert answer.headers["vary"] == "Accept-Encoding"


def test_etags_are_strong_stable_and_differ_between_codings(sandbox: Sandbox, client: httpx.Client) -> None:
    tags = {
        client.get("/api/v1/skills", headers={"accept-encoding": coding}).headers["etag"]
        for coding in ("gzip", "zstd", "identity", "zstd")
    }
    assert len(tags) == 3
    for tag in tags:
        answer = client.get("/api/v1/skills", headers={"if-none-match": f'"other", {tag}'})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == client.get("/api/v1/skills").headers["etag"]
    with Sandbox(skills=250, seed=3) as twin:
        headers = {"authorization": f"Bearer {twin.token}"}
        assert httpx.get(f"{twin.url}/api/v1/skills", headers=headers).headers["etag"] in tags
    sandbox.patch_skill(sandbox.skill_ids()[5], {"version": "9.9.9"})
    changed = client.get("/api/v1/skills", headers={"if-none-match": ", ".join(tags)})
    assert changed.status_code == 200
    assert changed.json()["skills"][5]["version"] == "9.9.9"


def test_a_change_leaves_other_pages_as_they_were(sandbox: Sandbox, client: httpx.Client) -> None:
    def tag(page: int) -> str:
        return client.get("/skills", params={"page": page, "page_size": 100}).headers["etag"]

    before = [tag(page) for page in (1, 2, 3)]
    sandbox.patch_skill(sandbox.skill_ids()[150], {"name": "new"})
    after = [tag(page) for page in (1, 2, 3)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_the_limit_is_said_and_enforced(sandbox: Sandbox, client: httpx.Client) -> None:
    assert client.get("/health").headers["x-ratelimit-limit"] == "100000"
    sandbox.set_rate_limit(2)
    first, second, third = (client.get("/skills") for _ in range(3))
    assert [first.headers["x-ratelimit-remaining"], second.headers["x-ratelimit-remaining"]] == ["1", "0"]
    assert (second.status_code, third.status_code) == (200, 429)
    assert 0 < int(third.headers["retry-after"]) <= 60
    assert int(third.headers["x-ratelimit-reset"]) > sandbox.state.now().timestamp()


def test_the_clock_can_be_shifted(sandbox: Sandbox, client: httpx.Client) -> None:
    before = parsedate_to_datetime(client.get("/health").headers["date"])
    sandbox.set_clock_offset(7200)
    after = parsedate_to_datetime(client.get("/health").headers["date"])
    assert 7100 < (after - before).total_seconds() < 7300


def test_added_replaced_and_deleted_skills_show(sandbox: Sandbox, client: httpx.Client) -> None:
    first, second = sandbox.skill_ids()[:2]
    sandbox.delete_skill(first)
    sandbox.put_skill({"skill_id": second, "name": "other", "extra": {"kept": [1]}})
    sandbox.put_skill({"skill_id": "new", "name": "new"}, position=0)
    listed = client.get("/api/v1/skills").json()["skills"]
    assert [skill["skill_id"] for skill in listed[:2]] == ["new", second]
    assert listed[1]["extra"] == {"kept": [1]}
    assert client.get(f"/api/v1/skills/{first}").status_code == 404
    sandbox.reset()
    assert walk(client)[:2] == [first, second]


def test_an_update_is_never_older_than_what_it_updates(sandbox: Sandbox) -> None:
    skill_id = sandbox.skill_ids()[0]
    sandbox.put_skill({"skill_id": skill_id, "name": "of tomorrow", "updated_at": "2999-01-01T00:00:00Z"})
    assert sandbox.patch_skill(skill_id, {"name": "x"})["updated_at"] == "2999-01-01T00:00:01Z"


def test_the_log_holds_requests_without_their_tokens(sandbox: Sandbox, client: httpx.Client) -> None:
    client.get("/api/v1/skills?page=2", headers={"x-api-token": "secret"})
    [entry] = sandbox.requests("list")
    assert (entry.method, entry.path, entry.query, entry.status) == ("GET", "/api/v1/skills", "page=2", 200)
    assert entry.headers["authorization"] == entry.headers["x-api-token"] == "***"
    assert sandbox.token not in json.dumps(sandbox.journal.documents())


def test_connections_are_counted(sandbox: Sandbox) -> None:
    with httpx.Client(base_url=sandbox.url) as one, httpx.Client(base_url=sandbox.url) as two:
        one.get("/health")
        two.get("/health")
        one.get("/health")
        assert sandbox.journal.counters["connections"] == 2
        assert sandbox.journal.counters["connections_max"] == 2
    assert sandbox.wait_for(lambda: sandbox.journal.counters["connections_open"] == 0)


def test_bodies_share_the_bandwidth(sandbox: Sandbox, client: httpx.Client) -> None:
    client.headers["accept-encoding"] = "identity"
    size = len(client.get("/api/v1/skills").content)
    sandbox.set_bandwidth(size * 10)
    began = time.monotonic()
    with httpx.Client(base_url=sandbox.url, headers=client.headers) as other, ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda each: each.get("/api/v1/skills").content, (client, other)))
    assert [len(body) for body in both] == [size, size]
    assert time.monotonic() - began >= 0.2, "a tenth of a second each"


def test_other_methods_and_paths_are_refused(client: httpx.Client) -> None:
    assert client.delete("/api/v1/skills").status_code == 405
    assert client.get("/api/v1/ratings").status_code == 405
    assert client.get("/api/v2/skills").status_code == 404
