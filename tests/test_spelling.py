"""Another spelling of the same JSON is not a change, from any source: counts and `changed` are about content."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import Machine

from atom_saas_sync.core.incoming.messages import Message, parse_frame
from atom_saas_sync.usecases.follow_events import EventFollower

Json = dict[str, Any]
Spell = Callable[[Any], str]

SKILLS: list[Json] = [
    {
        "skill_id": f"s{number}",
        "name": "Grüße 😀 日本",
        "code": "print('ä/')",
        "tags": ["é", "b"],
        "average_rating": 4.5,
        "metadata": {"author": "Zoë", "slug": "a/b"},
        "updated_at": "2026-01-01T00:00:00Z",
    }
    for number in range(5)
]
CATEGORIES = [{"name": "Über", "description": "é", "skill_count": 5}]


def backwards(value: Any) -> Any:
    """Return the same value with the keys of objects in another order."""
    if isinstance(value, dict):
        return {name: backwards(value[name]) for name in reversed(value)}
    return [backwards(each) for each in value] if isinstance(value, list) else value


def every_letter_escaped(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{every_letter_escaped(key)}:{every_letter_escaped(value[key])}" for key in value) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(every_letter_escaped, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    return '"' + "".join(f"\\u{ord(each):04X}" if each.isascii() else json.dumps(each)[1:-1] for each in value) + '"'


SPELLINGS: dict[str, Spell] = {
    "escaped": json.dumps,
    "every letter escaped": every_letter_escaped,
    "indented": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "keys in another order": lambda value: json.dumps(backwards(value), ensure_ascii=False),
}


class Marketplace(ThreadingHTTPServer):
    """Lists the skills and categories in a spelling chosen by the test."""

    spell: Spell = staticmethod(lambda value: json.dumps(value, ensure_ascii=False))

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.skills = SKILLS


class _Handler(BaseHTTPRequestHandler):
    server: Marketplace

    def do_GET(self) -> None:
        document: Json = {"categories": CATEGORIES}
        if "/skills" in self.path:
            document = {"skills": self.server.skills if "page=1&" in self.path else [], "total": len(SKILLS)}
        body = self.server.spell(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def marketplace() -> Iterator[Marketplace]:
    with Marketplace() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(60)


def sync(machine: Machine, marketplace: Marketplace, *options: str) -> Json:
    result = machine.command("sync", "skills", "--json", *options, ATOM_SAAS_API_URL=marketplace.url)
    assert result.returncode == 0, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def updates(machine: Machine) -> list[Any]:
    return machine.sql(
        "SELECT labels, value FROM counter "
        "WHERE name = 'atom_saas_sync_items_total' AND json_extract(labels, '$.action') = 'updated'"
    )


@pytest.mark.parametrize("name", SPELLINGS)
def test_another_spelling_changes_nothing(machine: Machine, marketplace: Marketplace, name: str) -> None:
    assert sync(machine, marketplace)["added"] == 5
    machine.edit("s1", code="mine")
    counted = updates(machine)
    times = machine.sql("SELECT skill_id, updated_at FROM skill_cache ORDER BY skill_id")
    marketplace.spell = SPELLINGS[name]
    planned = sync(machine, marketplace, "--dry-run")
    assert (planned["updated"], planned["changed"], planned["plan"]) == (0, False, [])
    report = sync(machine, marketplace)
    assert (report["updated"], report["unchanged"], report["changed"]) == (0, 5, False)
    assert machine.cached() == {each["skill_id"]: each for each in SKILLS} | {"s1": {**SKILLS[1], "code": "mine"}}
    assert machine.sql("SELECT skill_id, updated_at FROM skill_cache ORDER BY skill_id") == times
    assert machine.sql("SELECT count(*) FROM skill_version") == [(0,)]
    assert machine.sql("SELECT skill_id FROM usable_skill WHERE source = 'edited'") == [("s1",)]
    assert updates(machine) == counted
    # Only the real change among other spellings is counted.
    marketplace.skills = [{**SKILLS[0], "average_rating": 3}, *SKILLS[1:3], {**SKILLS[3], "code": "new"}, SKILLS[4]]
    assert (again := sync(machine, marketplace))["updated"] == 2 and again["changed"]


def test_rows_respelled_by_another_program_are_not_updated(machine: Machine, marketplace: Marketplace) -> None:
    sync(machine, marketplace)
    machine.sql("UPDATE skill_cache SET skill_data = ?, updated_at = '2026-01-02' WHERE skill_id = 's0'",
                every_letter_escaped(SKILLS[0]))  # fmt: skip
    report = sync(machine, marketplace)
    assert (report["updated"], report["changed"]) == (0, False)
    assert machine.sql("SELECT skill_id FROM usable_skill WHERE source != 'marketplace'") == []


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_message_in_another_spelling_changes_nothing(machine: Machine, marketplace: Marketplace, name: str) -> None:
    sync(machine, marketplace)
    machine.edit("s1", code="mine")
    before, counted = machine.cached(), updates(machine)
    data = SPELLINGS[name]
    frames = [
        *(f'{{"type": "skill_update", "data": {data(each)}}}' for each in SKILLS),
        f'{{"type": "category_update", "data": {data(CATEGORIES[0])}}}',
    ]
    messages = [parse_frame(frame) for frame in frames]
    with machine.store() as store:
        follower = EventFollower(store.events(history_versions=10), strategy="remote_wins")
        follower.apply([each for each in messages if isinstance(each, Message)], datetime.now(UTC))
    assert all(isinstance(each, Message) for each in messages)
    assert machine.cached() == before
    assert updates(machine) == counted
    report = sync(machine, marketplace)
    assert (report["updated"], report["changed"]) == (0, False)
