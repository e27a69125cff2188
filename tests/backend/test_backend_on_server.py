"""The Atom backend's own tables on a PostgreSQL server, with keys that are enforced: both programs write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backend_models import backend, fill, rows
from conftest import Machine
from server_databases import new_database


class Site:
    """A backend and atom-sync, in one database."""

    def __init__(self, machine: Machine, url: str) -> None:
        self.machine = machine
        self.url = url
        self.engine = backend(url)

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        result = self.machine.command(*arguments, ATOM_SAAS_DATABASE_URL=self.url, **variables)
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr

    def json(self, *arguments: str, code: int = 0, **variables: str) -> Any:
        result = self.machine.command(*arguments, "--json", ATOM_SAAS_DATABASE_URL=self.url, **variables)
        assert result.returncode == code, result.stdout + result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def site(machine: Machine, postgresql_server: str) -> Site:
    """Return a site where the backend came first and has filled its tables."""
    site = Site(machine, new_database(postgresql_server))
    fill(site.engine, [dict(machine.sandbox.skill(name)) for name in machine.sandbox.skill_ids()[:20]])
    return site


def test_a_sync_writes_the_backends_own_tables(site: Site) -> None:
    before = {each["skill_id"]: each["id"] for each in rows(site.engine)["skill_cache"]}
    assert site.json("sync", "skills")["success"]
    after = rows(site.engine)["skill_cache"]
    listed = site.machine.listed()
    assert {each["skill_id"]: each["skill_data"] for each in after} == listed
    assert {each["skill_id"]: each["id"] for each in after if each["skill_id"] in before} == before
    assert site.json("db", "check")["findings"] == []
