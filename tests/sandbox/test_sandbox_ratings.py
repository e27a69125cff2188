"""The sandbox's ratings follow the contract ("Send a rating")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from atom_saas_sync.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(skills=3) as running:
        yield running


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer {sandbox.token}"}) as client:
        yield client


def body(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    return {"skill_id": sandbox.skill_ids()[0], "rating": 4, "comment": None, "user_id": "ann"} | changes


def test_a_rating_is_stored_and_moves_the_average(sandbox: Sandbox, client: httpx.Client) -> None:
    skill_id = sandbox.skill_ids()[0]
    sandbox.patch_skill(skill_id, {"average_rating": 5.0, "rating_count": 1})
    answer = client.post("/api/v1/ratings", json=body(sandbox, rating=2, comment="so so"))
    document = answer.json()
    assert answer.status_code == 201
    assert document["success"] is True
    assert (document["average_rating"], document["rating_count"]) == (3.5, 2)
    assert sandbox.ratings()[0]["rating_id"] == document["rating_id"]
    shown = client.get(f"/api/v1/skills/{skill_id}").json()
    assert (shown["average_rating"], shown["rating_count"]) == (3.5, 2)
    assert shown["ratings"][-1]["comment"] == "so so"


def test_the_same_key_and_body_store_once(sandbox: Sandbox, client: httpx.Client) -> None:
    key = {"idempotency-key": "k1"}
    first, again = (client.post("/ratings", json=body(sandbox), headers=key) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert len(sandbox.ratings()) == 1
    other = client.post("/ratings", json=body(sandbox, rating=1), headers=key)
    assert other.status_code == 422
    assert sandbox.ratings()[0]["rating"] == 4


def test_a_second_rating_of_a_user_conflicts_and_can_be_updated(sandbox: Sandbox, client: httpx.Client) -> None:
    first = client.post("/api/v1/ratings", json=body(sandbox)).json()
    conflict = client.post("/api/v1/ratings", json=body(sandbox, rating=1))
    assert conflict.status_code == 409
    assert conflict.json()["rating"] == 4
    assert conflict.json()["created_at"] == first["created_at"]
    path = f"/api/v1/ratings/{first['rating_id']}"
    updated = client.put(path, json=body(sandbox, rating=1))
    assert (updated.status_code, updated.json()["rating"]) == (200, 1)
    assert updated.json()["rating_count"] == first["rating_count"]
    assert client.put("/api/v1/ratings/nothing", json=body(sandbox)).status_code == 404
    assert client.put(path, json=body(sandbox, user_id="bob")).status_code == 404


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"rating": 0}, 422),
        ({"rating": 6}, 422),
        ({"rating": 4.5}, 422),
        ({"rating": True}, 422),
        ({"rating": "4"}, 422),
        ({"comment": "x" * 1001}, 422),
        ({"comment": 3}, 400),
        ({"user_id": ""}, 400),
        ({"user_id": None}, 400),
        ({"skill_id": None}, 400),
        ({"skill_id": "nobody"}, 404),
    ],
)
def test_wrong_ratings_are_refused(
    sandbox: Sandbox, client: httpx.Client, changes: dict[str, Any], status: int
) -> None:
    assert client.post("/api/v1/ratings", json=body(sandbox, **changes)).status_code == status
    assert sandbox.ratings() == []


def test_bodies_that_are_not_objects_or_too_large_are_refused(client: httpx.Client) -> None:
    assert client.post("/api/v1/ratings", content=b"{").status_code == 400
    assert client.post("/api/v1/ratings", content=b"[]").status_code == 400
    assert client.post("/api/v1/ratings", content=b" " * (1024 * 1024 + 1)).status_code == 413


def test_mothership_names_the_skill_in_the_path(sandbox: Sandbox) -> None:
    skill_id = sandbox.skill_ids()[1]
    rating = {"rating": 5, "user_id": "ann"}
    with httpx.Client(base_url=sandbox.url, headers={"x-api-token": sandbox.token}) as client:
        path = f"/skills/marketplace/skills/{skill_id}/rate"
        first = client.post(path, json=rating)
        assert (first.status_code, first.json()["skill_id"]) == (201, skill_id)
        again = client.put(f"{path}/{first.json()['rating_id']}", json=rating | {"rating": 2})
        assert (again.status_code, again.json()["rating"]) == (200, 2)
        assert client.post(path, json=rating | {"skill_id": "another"}).status_code == 400


def test_ratings_of_other_users_can_be_added_with_their_times(sandbox: Sandbox, client: httpx.Client) -> None:
    skill_id = sandbox.skill_ids()[2]
    sandbox.add_rating(skill_id, "bob", 3, "fine", created_at="2025-01-01T00:00:00Z")
    [shown] = [rating for rating in client.get(f"/skills/{skill_id}").json()["ratings"] if rating["user_id"] == "bob"]
    assert (shown["rating"], shown["created_at"], shown["updated_at"]) == (
        3,
        "2025-01-01T00:00:00Z",
        "2025-01-01T00:00:00Z",
    )


def test_a_deleted_skill_takes_its_ratings_along(sandbox: Sandbox) -> None:
    sandbox.add_rating(sandbox.skill_ids()[0], "bob", 3)
    sandbox.delete_skill(sandbox.skill_ids()[0])
    assert sandbox.ratings() == []
