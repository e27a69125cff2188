"""Public registries as catalogues: records of their shape, made up, converted to skills and synced.

What must hold for each: stored equal field for field, found by name, complete, and what is gone there is deleted here.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from conftest import Json, Machine
from scripted_support import scripted_marketplace

from atom_saas_sync.core.canonical import VOLATILE_FIELDS
from atom_saas_sync.times import parse_time


def from_npm(record: Json) -> Json:
    """Convert an object of an npm search."""
    package = record["package"]
    return {
        "skill_id": package["name"],
        "name": package["name"],
        "version": package["version"],
        "description": package.get("description"),
        "tags": package.get("keywords", []),
        "npm_packages": [f"{package['name']}@{package['version']}"],
        "command": f"npx {package['name']}",
        "updated_at": package["date"],
        "metadata": {"links": package["links"], "publisher": package["publisher"], "scope": package.get("scope")},
        "score": record["score"],
        "flags": record.get("flags"),
    }


NPM = [
    {
        "package": {
            "name": "@lantern/sheet-reader", "scope": "lantern", "version": "3.0.0-rc.1+build.7",
            "description": "Reads sheets — «quickly» 📄", "keywords": ["sheet", "レポート", ""],
            "date": "2026-01-31T23:59:59.999Z",
            "links": {"npm": "https://example.com/package/%40lantern%2Fsheet-reader"},
            "publisher": {"username": "lantern-bot", "email": "bot@example.com"},
        },
        "score": {"final": 0.7213456789012345, "detail": {"quality": 1, "popularity": 1e-7, "maintenance": 0.33}},
        "flags": {"insecure": 0},
    },
    {
        "package": {
            "name": "left_over.js", "version": "0.0.0", "description": None, "date": "2014-05-01T00:00:00.000Z",
            "links": {}, "publisher": {"username": "ghost"},
        },
        "score": {"final": 0},
    },
    {
        "package": {
            "name": "@lantern/~tilde", "version": "1.0.0", "description": "", "keywords": ["a"],
            "date": "2026-02-01T00:00:00.000+02:00", "links": {"repository": None}, "publisher": {},
        },
        "score": {"final": 1},
    },
]  # fmt: skip


def from_pypi(record: Json) -> Json:
    """Convert a project's JSON of PyPI."""
    info = record["info"]
    return {
        "skill_id": info["name"],
        "name": info["name"],
        "version": info["version"],
        "description": info["summary"],
        "code": info["description"],
        "tags": [word.strip() for word in (info["keywords"] or "").split(",") if word.strip()],
        "python_packages": info["requires_dist"] or [],
        "category": next((each for each in info["classifiers"] if each.startswith("Topic")), None),
        "updated_at": record["urls"][0]["upload_time_iso_8601"] if record["urls"] else None,
        "metadata": {"requires_python": info["requires_python"], "yanked": info["yanked"]},
        "urls": record["urls"],
        "last_serial": record["last_serial"],
        "vulnerabilities": record["vulnerabilities"],
    }


PYPI = [
    {
        "info": {
            "name": "quill.tables", "version": "2026.2.post1", "summary": "Tables for Quill\n", "keywords": "csv, tsv,",
            "description": '# Quill\r\n\r\n```python\nprint("{}".format(1))\n```\n', "requires_python": ">=3.9",
            "requires_dist": ["lxml>=5; extra == 'xml'", 'tzdata ; sys_platform == "win32"'], "yanked": False,
            "classifiers": ["Topic :: Text Processing", "License :: OSI Approved"],
        },
        "urls": [{"filename": "quill_tables-2026.2.post1.tar.gz", "size": 3221225472, "digests": {"sha256": "0" * 64},
                  "upload_time_iso_8601": "2026-02-18T07:06:05.432100Z"}],
        "last_serial": 31415926535, "vulnerabilities": [],
    },
    {
        "info": {
            "name": "Uncanny_Name", "version": "0!1.0", "summary": None, "keywords": None, "description": "",
            "requires_python": None, "requires_dist": None, "yanked": True, "classifiers": [],
        },
        "urls": [], "last_serial": 1, "vulnerabilities": [{"id": "PYSEC-0", "fixed_in": []}],
    },
]  # fmt: skip


def from_mcp(record: Json) -> Json:
    """Convert an entry of the MCP registry."""
    server, meta = record["server"], record["_meta"]["official"]
    return {
        "skill_id": server["name"],
        "name": server.get("title", server["name"]),
        "version": server["version"],
        "description": server["description"],
        "skill_type": "mcp_server",
        "npm_packages": [each["identifier"] for each in server.get("packages", []) if each["registryType"] == "npm"],
        "env_vars": {
            variable["name"]: variable
            for each in server.get("packages", [])
            for variable in each.get("environmentVariables", [])
        },
        "created_at": meta["publishedAt"],
        "updated_at": meta["updatedAt"],
        "metadata": {"status": meta["status"], "$schema": server["$schema"], "remotes": server.get("remotes")},
    }


MCP = [
    {
        "server": {
            "$schema": "https://example.com/server.schema.json", "name": "io.github.quill-labs/tide_tables",
            "title": "Tide Tables", "description": "High and low water.", "version": "1.0.2",
            "packages": [{
                "registryType": "npm", "identifier": "@quill-labs/tide-mcp", "transport": {"type": "stdio"},
                "environmentVariables": [{"name": "TIDE_KEY", "isSecret": True, "description": ""}],
            }],
        },
        "_meta": {"official": {"status": "active", "publishedAt": "2025-09-09T14:46:10.123456Z",
                               "updatedAt": "2025-09-09T14:46:10.123456789Z", "isLatest": True}},
    },
    {
        "server": {
            "$schema": "https://example.com/server.schema.json", "name": "com.example/weather:v2",
            "description": "Weather <b>now</b>", "version": "latest",
            "remotes": [{"type": "streamable-http", "url": "https://weather.example.com/{region}/mcp"}],
        },
        "_meta": {"official": {"status": "deprecated", "publishedAt": "2025-12-01T00:00:00Z",
                               "updatedAt": "2025-12-01T00:00:00+00:00Z"}},
    },
]  # fmt: skip


def from_gallery(record: Json) -> Json:
    """Convert an extension of the VS Code gallery."""
    statistics = {each["statisticName"]: each["value"] for each in record["statistics"]}
    newest = record["versions"][0]
    return {
        "skill_id": f"{record['publisher']['publisherName']}.{record['extensionName']}",
        "name": record["displayName"],
        "version": newest["version"],
        "description": record.get("shortDescription"),
        "tags": record["tags"],
        "category": record["categories"][0] if record["categories"] else None,
        "average_rating": statistics.get("averagerating"),
        "rating_count": statistics.get("ratingcount"),
        "download_count": statistics.get("install"),
        "created_at": record["publishedDate"],
        "updated_at": record["lastUpdated"],
        "metadata": {"extensionId": record["extensionId"], "flags": record["flags"]},
        "versions": record["versions"],
    }


GALLERY = [
    {
        "publisher": {"publisherName": "brass-lamp", "displayName": "Brass Lamp Ltd."}, "extensionId": "8f2c0d52-0000",
        "extensionName": "ledger-lint", "displayName": "Ledger Lint", "flags": "validated, public",
        "shortDescription": "Lints ledgers 🧾", "tags": ["ledger", "__ext_ledger", "C#"],
        "categories": ["Linters", "Other"], "publishedDate": "2020-04-01T08:30:15.27Z",
        "lastUpdated": "2026-02-11T19:02:03.94Z",
        "statistics": [{"statisticName": "install", "value": 7406286}, {"statisticName": "averagerating",
                        "value": 4.679611682891846}, {"statisticName": "ratingcount", "value": 103}],
        "versions": [{"version": "1.22.2026021101", "targetPlatform": "linux-x64", "properties": [
            {"key": "Microsoft.VisualStudio.Code.Engine", "value": "^1.90.0"}]}],
    },
    {
        "publisher": {"publisherName": "nobody"}, "extensionId": "00000000-0000", "extensionName": "Äther",
        "displayName": "Äther für Köche", "flags": "none", "tags": [], "categories": [], "statistics": [],
        "publishedDate": "2019-01-01T00:00:00Z", "lastUpdated": "2019-01-01 00:00:00",
        "versions": [{"version": "0.0.1"}],
    },
]  # fmt: skip


def from_crates(record: Json) -> Json:
    """Convert a crate of crates.io."""
    return {
        "skill_id": record["id"],
        "name": record["name"],
        "version": record["max_stable_version"] or record["newest_version"],
        "description": record["description"],
        "tags": record["keywords"] or [],
        "category": (record["categories"] or [None])[0],
        "created_at": record["created_at"],
        "updated_at": record["updated_at"],
        "metadata": {"links": record["links"], "badges": record["badges"], "exact_match": record["exact_match"]},
        "downloads": record["downloads"],
    }


CRATES: list[Json] = [
    {
        "id": "tin-whistle", "name": "tin-whistle", "max_stable_version": "0.9.12", "newest_version": "0.10.0-alpha.3",
        "description": "  Plays tunes.\n", "keywords": ["audio", "midi"], "categories": ["multimedia::audio"],
        "created_at": "2018-11-11T11:11:11.111111+00:00", "updated_at": "2026-01-05T04:03:02.000001+00:00",
        "links": {"owners": "/api/v1/crates/tin-whistle/owners", "versions": None}, "badges": [], "exact_match": True,
        "downloads": 18446744073709551615,
    },
    {
        "id": "r_", "name": "R_", "max_stable_version": None, "newest_version": "0.0.0", "description": None,
        "keywords": None, "categories": None, "created_at": "2026-01-05T04:03:02+00:00", "updated_at": 1767585782000,
        "links": {}, "badges": [{"attributes": {}}], "exact_match": False, "downloads": 0,
    },
]  # fmt: skip


def from_maven(record: Json) -> Json:
    """Convert a document of a Maven search."""
    return {
        "skill_id": record["id"],
        "name": f"{record['g']} {record['a']}",
        "version": record["latestVersion"],
        "tags": record["text"],
        "skill_type": record["p"],
        "updated_at": record["timestamp"],
        "metadata": {"versionCount": record["versionCount"], "ec": record["ec"]},
    }


MAVEN: list[Json] = [
    {
        "id": "org.example.kiln:kiln-core", "g": "org.example.kiln", "a": "kiln-core", "latestVersion": "33.4.0-jre",
        "p": "bundle", "timestamp": 1766016000000, "versionCount": 129, "ec": ["-sources.jar", ".jar", ".pom"],
        "text": ["org.example.kiln", "kiln-core", "-sources.jar"],
    },
    {
        "id": "kiln:kiln", "g": "kiln", "a": "kiln", "latestVersion": "20041127.091804", "p": "jar",
        "timestamp": 1101551884000, "versionCount": 1, "ec": [], "text": [],
    },
]  # fmt: skip

REGISTRIES: dict[str, tuple[Callable[[Json], Json], list[Json]]] = {
    "npm": (from_npm, NPM),
    "PyPI": (from_pypi, PYPI),
    "MCP": (from_mcp, MCP),
    "VS Code": (from_gallery, GALLERY),
    "crates.io": (from_crates, CRATES),
    "Maven": (from_maven, MAVEN),
}


def lasting(skill: Json) -> Json:
    """Return a skill without its volatile fields."""
    return {name: value for name, value in skill.items() if name not in VOLATILE_FIELDS}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_registry_is_stored_field_for_field_and_found_by_name(machine: Machine, registry: str) -> None:
    convert, records = REGISTRIES[registry]
    skills = {skill["skill_id"]: skill for skill in map(convert, records)}
    with scripted_marketplace([json.dumps(skill).encode() for skill in skills.values()]) as market:
        report = machine.pull(url=market.url, page_size=2)
        assert (report.status, report.complete, report.counts.added) == ("success", True, len(skills))
        cached = machine.cached()
        assert {name: lasting(skill) for name, skill in cached.items()} == {
            name: lasting(skill) for name, skill in skills.items()
        }
        assert [parse_time(skill["updated_at"]) for skill in cached.values()] == [
            parse_time(skill["updated_at"]) for skill in skills.values()
        ]
        report = machine.pull(url=market.url, page_size=2)
        assert (report.counts.unchanged, report.counts.updated, report.complete) == (len(skills), 0, True)

        for skill_id, skill in skills.items():
            found = machine.command("skills", "search", skill["name"], "--json")
            assert skill_id in [each["skill_id"] for each in json.loads(found.stdout)["skills"]], found.stdout

        first = json.loads(market.items.pop(0))["skill_id"]
        report = machine.pull(url=market.url, page_size=2)
        assert (report.status, report.complete, report.counts.deleted) == ("success", True, 1)
        assert set(machine.cached()) == skills.keys() - {first}


def test_the_dates_of_registries_are_all_read() -> None:
    times = [convert(record)["updated_at"] for convert, records in REGISTRIES.values() for record in records]
    assert [value for value in times if value is not None and parse_time(value) is None] == []
