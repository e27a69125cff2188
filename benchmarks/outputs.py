"""Compare what programs see of this checkout with another commit: `python benchmarks/outputs.py REV`.

Both run the same commands against the same sandbox, each on an empty disk of its own: exit codes, JSON documents, the
admin API, the names and labels of the metrics, and the tables and views. Each runs them twice; values that differ
between the two (times, process ids) are compared by their type only. Messages and hints are for people and are not
compared. What only this checkout has is listed as an addition; anything else that differs is a change: exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from compare import Side, both_sides

from atom_saas_sync.sandbox import Sandbox

FOR_PEOPLE = {"message", "hint", "help", "description", "detail", "notices", "warnings", "explanation", "meaning"}
ADMIN_TOKEN = "made-up-for-this"
ROUTES = [
    *("/health/live", "/health/ready", "/health/sync"),
    *(f"/api/admin/sync/{name}" for name in ("status", "jobs", "conflicts", "conflicts/1", "conflicts/999", "config")),
    *("/api/admin/sync/ratings/status", "/api/admin/sync/ratings/failed-uploads", "/no/such/route"),
]


def command_lines(ids: list[str]) -> list[str]:
    """Return the commands in their order; in `!NAME ID` another program edits the skill."""
    first, second, third, fourth = ids[:4]
    return f"""
        status --json
        status --check --json
        metrics
        doctor --json
        config check --json
        config show --json
        skills list --json
        sync skills --dry-run --json
        sync skills --json
        sync skills --json
        sync categories --json
        status --json
        status --check --json
        runs list --json
        runs show 1 --json
        runs show 99 --json
        skills list --limit 3 --json
        skills list --sort rating --limit 3 --json
        skills search data --json
        skills show {first} --json
        skills show no-such-skill --json
        skills edit {first} --set name=Mine --json
        skills edit {second} --set name=Mine --json
        !edit {third}
        skills list --modified --json
        skills diff {first} --json
        skills log {first} --json
        sandbox push {first} --set name=Theirs --json
        sandbox push {second} --set description=Theirs --json
        sandbox push {third} --set name=Theirs --json
        sandbox push {fourth} --delete --json
        sync skills --dry-run --json
        sync skills --strategy manual --json
        sync skills --strategy manual --fail-on-conflict --json
        conflicts list --json
        conflicts show 1 --json
        conflicts show 99 --json
        conflicts resolve 1 --strategy local_wins --json
        conflicts resolve 2 --strategy no-such-strategy --json
        conflicts undo 1 --json
        conflicts resolve --all --strategy remote_wins --json
        conflicts list --resolved --json
        skills revert {first} --json
        skills log {first} --json
        skills restore {first} --version 1.0.0 --json
        skills delete {first} --json
        ratings add {first} 5 --comment good --json
        ratings add {second} 6 --json
        ratings list --json
        ratings failed --json
        sync ratings --json
        ratings list --json
        ratings retry --all --json
        sync all --json
        sync skills --scheduled --json
        cache stats --json
        cache purge --dry-run --json
        budget show --json
        budget reset --json
        jobs --json
        jobs stop --json
        sync skills --scheduled --json
        jobs start --json
        schedule cron --json
        schedule systemd --json
        files list --json
        db current --json
        db history --json
        db check --json
        db backup copy.db --json
        db restore copy.db --yes --json
        db compact --json
        db upgrade --json
        db downgrade -1 --json
        db upgrade --json
        db rebind http://127.0.0.1:1 --json
        sandbox state --json
        metrics
        sync skills --force --json
        sync skills --no-such-option --json
        no-such-command
        sync skills --max-delete x --json
        metrics
        completion bash
        --version
    """.strip().splitlines()


def record(side: Side) -> dict[str, Any]:
    """Return what each command, route, table and metric shows."""
    found: dict[str, Any] = {}
    with Sandbox(skills=60, seed=3) as sandbox, tempfile.TemporaryDirectory() as place:
        database = Path(place, "atom.db")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": place,
            "ATOM_SAAS_API_URL": sandbox.url,
            "ATOM_SAAS_WS_URL": sandbox.ws_url,
            "ATOM_SAAS_API_TOKEN": sandbox.token,
            "ATOM_SAAS_DATABASE_URL": str(database),
            "ATOM_SYNC_ADMIN_TOKEN": ADMIN_TOKEN,
        }
        for number, text in enumerate(command_lines(sandbox.skill_ids())):
            line = text.split()
            if line[0].startswith("!"):
                edit(database, line[1])
                continue
            found[f"{number:02} {' '.join(line)}"] = run([str(side.program), *line], environment, place)
        with serving(side, environment, place) as url:
            for route in ROUTES:
                found[f"GET {route}"] = get(url + route)
        found["schema"] = schema(database)
    text = json.dumps(found).replace(place, "<place>").replace(sandbox.url, "<sandbox>")
    text = text.replace(str(side.program.parent), "<programs>")
    newest = re.findall(r"\d{4}_\w+", text)
    return json.loads(text.replace(max(newest), "<newest migration>"))  # type: ignore[no-any-return]


def run(arguments: list[str], environment: dict[str, str], place: str) -> dict[str, Any]:
    done = subprocess.run(
        arguments, env=environment, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    if "--json" in arguments:
        return {"exit": done.returncode, "document": json.loads(done.stdout or "null")}
    metrics = re.findall(r"^(?:# TYPE )?(\w+(?:\{.*\})?) ", done.stdout, re.MULTILINE)
    return {"exit": done.returncode, "metrics": dict.fromkeys(metrics, True) if "metrics" in arguments else {}}


def edit(database: Path, skill_id: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE skill_cache SET skill_data = json_set(skill_data, '$.name', 'Mine') WHERE skill_id = ?", [skill_id]
        )


@contextmanager
def serving(side: Side, environment: dict[str, str], place: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [side.program, "serve-health", "--port", port], env=environment, cwd=place, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                get(f"{url}/health/live")
                break
            except urllib.error.URLError:
                time.sleep(0.1)  # the pause of a bounded poll: the other revision may not announce when it listens
        else:
            raise RuntimeError(f"{url} did not answer within a minute")
        yield url
    finally:
        server.terminate()
        server.wait(60)


def get(url: str) -> dict[str, Any]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {"exit": answer.status, "document": json.load(answer)}
    except urllib.error.HTTPError as error:
        with error:
            return {"exit": error.code, "document": json.load(error)}


def schema(database: Path) -> dict[str, Any]:
    """Return the columns of each table and view, and the statement that made each view."""
    with closing(sqlite3.connect(database)) as connection:
        objects = connection.execute(
            "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite~_%' "
            "ESCAPE '~'"
        ).fetchall()
        return {
            name: {
                "type": kind,
                "view": " ".join(sql.split()) if kind == "view" else None,
                "columns": {
                    row[1]: list(row[2:]) for row in connection.execute("SELECT * FROM pragma_table_info(?)", [name])
                },
            }
            for name, kind, sql in objects
        }


def leaves(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and value of everything in a document but the words for people; of what varies, the type."""
    if isinstance(value, dict):
        for key, each in value.items():
            if "bytes" in key or "seconds" in key or key in {"used", "free"}:  # of the budget in the last minute
                yield f"{path} / {key}", type(each).__name__
            elif key not in FOR_PEOPLE:
                yield from leaves(each, f"{path} / {key}")
    elif isinstance(value, list):
        names = [each.get("name", each.get("check")) if isinstance(each, dict) else None for each in value]
        if None not in names and len(set(names)) == len(names):
            yield from leaves(dict(zip(names, value, strict=True)), path)
            return
        yield f"{path} / length", len(value)
        for number, each in enumerate(value):
            yield from leaves(each, f"{path} / {number}")
    else:
        yield path, value


def stable(side: Side) -> dict[str, Any]:
    """Record twice; of a value that is another one each time, keep the type."""
    one, other = dict(leaves(record(side))), dict(leaves(record(side)))
    return {path: value if other.get(path) == value else type(value).__name__ for path, value in one.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", metavar="REV", help="the commit to compare with")
    with both_sides(parser.parse_args().revision) as (before, now):
        old, new = stable(before), stable(now)
    for path in sorted(new.keys() - old.keys()):
        print(f"added{path}: {new[path]!r}")
    changed = [path for path in old if old[path] != new.get(path)]
    for path in changed:
        print(f"changed{path}: {old[path]!r} -> {new[path]!r}" if path in new else f"removed{path}: {old[path]!r}")
    print(f"{len(old):,} values compared, {len(changed)} changed, {len(new.keys() - old.keys())} added")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
