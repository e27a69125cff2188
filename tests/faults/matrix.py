"""Run every command that talks to the marketplace against every fault of the sandbox, and record the result.

`python tests/faults/matrix.py` prints docs/FAULTS.md (`make fault-matrix`); `--quick` omits faults that take seconds,
and most of what several commands have in common. Commands run in this process, with the real command line, HTTP,
WebSocket and database; only the clock for retries is simulated.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from atom_saas_sync.cli import main, runtime
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.sandbox.faults import KINDS, Fault

SKILLS = 40
PAGE_SIZE = 10
PATIENCE = 30.0
SKIPPED: list[float] = []
"""The pauses requested since the list was last cleared."""


class QuickClock(runtime.RunClock):
    """The real time, except that sleeping returns at once and moves the wall clock forward."""

    moved = timedelta()

    def now(self) -> datetime:
        return super().now() + QuickClock.moved

    def sleep(self, seconds: float | None, over: threading.Event | None = None) -> None:  # noqa: ARG002 - it takes no time
        assert seconds is not None
        SKIPPED.append(seconds)
        QuickClock.moved += timedelta(seconds=seconds)
        self.check()


# The faults


@dataclass(frozen=True)
class Case:
    """A fault with its parameters and its possible endpoints. `slow`: it takes seconds, or its result varies."""

    label: str
    kind: str
    fields: dict[str, Any]
    where: frozenset[str]
    slow: bool = False


HTTP = frozenset({"list", "skill", "categories", "ratings", "any"})
EVERYWHERE = HTTP | {"ws"}
LISTS = frozenset({"list", "any"})


def cases() -> Iterator[Case]:  # noqa: C901 - a table
    """Yield every fault, each kind in all its variants."""
    for status in (400, 401, 403, 404, 405, 408, 422, 425, 429, 500, 502, 503, 504):
        yield Case(f"answers {status}", "error", {"status": status}, EVERYWHERE)
    yield Case("answers 503 once", "error", {"status": 503, "times": 1}, EVERYWHERE)
    for after in ("7", "date:9", "3600", "soon"):
        yield Case(f"503 with Retry-After: {after}", "error", {"status": 503, "retry_after": after}, HTTP)
    yield Case("answers after 0.2 s", "delay", {"seconds": 0.2}, EVERYWHERE)
    yield Case("sends 20 bytes a second", "drip", {"amount": 20}, HTTP, slow=True)
    yield Case("never responds", "hang", {}, EVERYWHERE, slow=True)
    yield Case("stops in the middle of the body", "hang", {"value": "body"}, HTTP, slow=True)
    yield Case("closes without a response", "drop", {}, EVERYWHERE)
    yield Case("resets the connection", "drop", {"value": "reset"}, EVERYWHERE)
    yield Case("drops the connection in the middle of the body", "drop_body", {}, HTTP)
    yield Case("processes the request, then closes without a response", "store_then_drop", {"times": 1}, HTTP)
    yield Case("declares a longer body than it sends", "truncated", {}, HTTP)
    for value in ("html", "empty", "cut", "nan", "bad_utf8", "deep"):
        yield Case(f"body is not JSON: {value}", "not_json", {"value": value}, HTTP)
    for value in ("list", "missing", "not_list", "null", "text"):
        yield Case(f"JSON of the wrong form: {value}", "wrong_form", {"value": value}, HTTP)
    yield Case("an empty list", "empty_list", {}, LISTS)
    for value in ("missing", "wrong", "drifting", "text", "negative"):
        yield Case(f"`total` is {value}", "total", {"value": value}, LISTS)
    for value in ("missing", "wrong", "text"):
        yield Case(f"`total_pages` is {value}", "total_pages", {"value": value}, LISTS)
    yield Case("at most 7 skills a page", "page_cap", {"amount": 7}, LISTS)
    yield Case("a body of 80 MiB", "oversized", {"amount": 80 * 1024 * 1024}, HTTP, slow=True)
    yield Case(
        "a body of 80 MiB, with Content-Length", "oversized", {"amount": 80 * 1024 * 1024, "value": "length"}, HTTP
    )
    for value in ("gzip", "zstd"):
        yield Case(f"a {value} bomb", "bomb", {"amount": 80 * 1024 * 1024, "value": value}, HTTP, slow=True)
    yield Case("redirects within the origin", "redirect", {"value": "same", "status": 307}, EVERYWHERE)
    yield Case("redirects elsewhere", "redirect", {"value": "other"}, EVERYWHERE)
    yield Case("redirects to an invalid address", "redirect", {"location": "http://xn--a.example:1/"}, HTTP)
    for value in ("gzip", "zstd", "br"):
        yield Case(f"labels a plain body as {value}", "lying_encoding", {"value": value}, HTTP)
    yield Case("18 additional invalid items", "invalid_items", {"page": 1}, LISTS)
    yield Case("one item replaced by an invalid one", "broken_items", {"page": 1}, LISTS)
    for value in ("add", "remove"):
        yield Case(f"the list changes once while it is read: {value}", "drift", {"value": value, "times": 1}, LISTS)
    yield Case("the list keeps changing", "drift", {"value": "add"}, LISTS, slow=True)
    yield Case("a rating gets no id", "no_rating_id", {}, frozenset({"ratings", "any"}))
    for value in ("nested", "none"):
        where = frozenset({"ratings", "any"})
        yield Case(f"already rated; stored rating: {value}", "conflict_form", {"value": value}, where)
    yield Case("categories in the other form", "other_list", {}, frozenset({"categories", "any"}))
    for value in ("ietf", "none"):
        yield Case(f"limit headers: {value}", "limit_headers", {"value": value}, HTTP)
    yield Case("`id` instead of `skill_id`", "old_ids", {}, LISTS)
    for code in (1000, 1008, 1011, 4401):
        yield Case(f"accepts, then closes with {code}", "accept_close", {"status": code}, frozenset({"ws"}))


# Which of these appears depends on microseconds.
_BROKEN = re.compile(
    r"\[Errno 104\] Connection reset by peer|Connection reset by peer|RemoteProtocolError"
    r"|Server disconnected without sending a response\."
)

# The commands


@dataclass(frozen=True)
class Section:
    """A command, and the endpoint at which faults are injected."""

    title: str
    arguments: tuple[str, ...]
    endpoint: str
    prepare: Callable[[Sandbox], object] = lambda _sandbox: None


def _change_all(sandbox: Sandbox) -> None:
    for skill_id in sandbox.skill_ids():
        sandbox.patch_skill(skill_id, {"description": "new"}, push=False)


def _delete_one(sandbox: Sandbox) -> None:
    sandbox.delete_skill(sandbox.skill_ids()[3], push=False)


def _change_category(sandbox: Sandbox) -> None:
    sandbox.put_category("New", push=False)


def _rate_there(sandbox: Sandbox) -> None:
    sandbox.add_rating(sandbox.skill_ids()[0], "anna", 2)


SECTIONS = (
    Section("`sync skills`, the list", ("sync", "skills", "--no-categories"), "list", _change_all),
    Section("`sync skills`, confirming a deletion", ("sync", "skills", "--no-categories"), "skill", _delete_one),
    Section("`sync categories`", ("sync", "categories"), "categories", _change_category),
    Section("`sync ratings`, sending", ("sync", "ratings"), "ratings"),
    Section("`sync ratings`, reading newer ones", ("sync", "ratings", "--all"), "skill"),
    Section("`sync all`, at every endpoint", ("sync", "all"), "any", _change_all),
    Section("`doctor`, at every endpoint", ("doctor",), "any"),
    Section("`watch`, catching up over HTTP", ("watch",), "any", _change_all),
    Section("`watch`, the WebSocket's handshake", ("watch",), "ws"),
)


@dataclass(frozen=True)
class Outcome:
    """The effect of one fault on one command."""

    retries: int
    exit_code: int
    ended: str
    says: str
    kept: str


class Bench:
    """A sandbox, and a database in its initial state."""

    def __init__(self, sandbox: Sandbox, directory: Path) -> None:
        self._sandbox = sandbox
        self._template = directory / "template.db"
        self._database = directory / "atom.db"
        self._directory = directory
        run(self._environment(), directory, "sync", "skills")
        with closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute(
                "INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, 'anna', 4)", [sandbox.skill_ids()[0]]
            )
            connection.execute("PRAGMA journal_mode = DELETE")
        self._database.replace(self._template)

    def _environment(self, seconds: int = 10) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._directory),
            "ATOM_SAAS_API_URL": self._sandbox.url,
            "ATOM_SAAS_WS_URL": self._sandbox.ws_url,
            "ATOM_SAAS_API_TOKEN": self._sandbox.token,
            "ATOM_SAAS_DATABASE_URL": str(self._database),
            "ATOM_SAAS_API_TIMEOUT_SECONDS": str(seconds),
            "ATOM_SAAS_SYNC_BATCH_SIZE": str(PAGE_SIZE),
            "ATOM_SAAS_SYNC_CONNECTIONS": "1",
            "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000",
            "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000",
        }

    def meet(self, section: Section, case: Case) -> Outcome:
        """Run the command against the fault."""
        sandbox = self._sandbox
        for each in self._directory.glob("atom.db*"):
            each.unlink()
        shutil.copyfile(self._template, self._database)
        sandbox.reset()
        QuickClock.moved = timedelta()
        before = self._skills()
        section.prepare(sandbox)
        if case.kind == "conflict_form":
            _rate_there(sandbox)
        sandbox.fault(Fault(case.kind, endpoint=section.endpoint, **case.fields))
        SKIPPED.clear()
        # A short timeout only where one is expected: a slow machine must not cause others.
        environment = self._environment(1 if case.kind in {"hang", "drip"} else 60)
        if section.arguments == ("watch",):
            exit_code, ended, says = self._watch(section, environment)
        else:
            exit_code, output, errors = run(environment, self._directory, *section.arguments, "--json")
            assert "Traceback" not in errors, (section.title, case.label, errors)
            ended, says = _read(json.loads(output))
            says = says or _last_warning(errors)
        return Outcome(len(SKIPPED), exit_code, ended, self._plain(says), self._kept(before))

    def _watch(self, section: Section, environment: dict[str, str]) -> tuple[int, str, str]:
        """Run `watch` until its first poll, or its first connection, has ended."""
        started = time.monotonic()
        while_running = threading.Thread(target=self._stop_watch, args=(section.endpoint == "ws", started))
        while_running.start()
        exit_code, _, errors = run(environment, self._directory, "watch")
        while_running.join()
        assert "Traceback" not in errors, errors
        if section.endpoint == "ws":
            lines = [line for line in errors.splitlines() if "next attempt in" in line]
            says = _last_warning("\n".join(lines[:1])).split(";")[0]
            return exit_code, "retries" if lines else "connected", says
        with closing(sqlite3.connect(self._database)) as connection:
            status, reasons, message = connection.execute(
                "SELECT status, reasons, coalesce(error_message, '') FROM sync_run WHERE started_by = 'watch' "
                "ORDER BY id LIMIT 1"
            ).fetchone()
        return exit_code, ", ".join([status, *json.loads(reasons)]), message

    def _stop_watch(self, ws: bool, started: float) -> None:
        query = (
            "SELECT 1 FROM websocket_state WHERE stopped_at IS NULL AND (disconnect_reason IS NOT NULL "
            "OR EXISTS (SELECT 1 FROM sync_run WHERE started_by = 'watch' AND finished_at IS NOT NULL))"
            if ws
            else "SELECT 1 FROM sync_run WHERE started_by = 'watch' AND finished_at IS NOT NULL"
        )
        with closing(sqlite3.connect(self._database, timeout=60)) as connection:
            while not connection.execute(query).fetchone() and time.monotonic() - started < PATIENCE:
                time.sleep(0.01)  # the pause of a bounded poll
        os.kill(os.getpid(), signal.SIGTERM)

    def _skills(self) -> dict[str, str]:
        with closing(sqlite3.connect(self._database)) as connection:
            return dict(connection.execute("SELECT skill_id, skill_data FROM skill_cache").fetchall())

    def _kept(self, before: dict[str, str]) -> str:
        after = self._skills()
        old = sum(after.get(name) == text for name, text in before.items())
        gone = len(before.keys() - after.keys())
        new = len(after) - old
        words = [f"{old} unchanged" if old else "", f"{new} new" if new else "", f"{gone} deleted" if gone else ""]
        with closing(sqlite3.connect(self._database)) as connection:
            synced, failed = connection.execute(
                "SELECT synced_to_saas, (SELECT retry_count >= max_retries FROM failed_rating_upload) FROM skill_rating"
            ).fetchone()
        rating = "sent" if synced else "pending" if failed is None else "refused" if failed else "retried later"
        return f"skills: {', '.join(filter(None, words))}; rating: {rating}"

    def _plain(self, text: str) -> str:
        """Remove text that differs between runs."""
        text = re.sub(r"127\.0\.0\.1(:\d+)?", "HOST", text)
        text = _BROKEN.sub("the connection broke", text)
        text = re.sub(r"\(total \d+, then \d+;", "(total …;", text)  # each request makes it grow
        text = re.sub(r"among them .*?;", "…;", text)
        return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)


def _read(document: dict[str, Any]) -> tuple[str, str]:
    """Return how a command ended and its message, from its JSON."""
    if "findings" in document:
        bad = [each for each in document["findings"] if each["verdict"] in {"problem", "warning"}]
        bad = [each for each in bad if each["check"] not in {"timers", "schedule", "disk"}]
        return ", ".join(each["check"] for each in bad) or "healthy", "; ".join(each["message"] for each in bad)
    parts = [document["skills"], document["ratings"]] if "ratings" in document else [document]
    words = [document["status"]]
    messages = []
    for part in parts:
        words += part.get("reasons", [])
        if part["error"] is not None:
            words += [part["error"]["type"]]
            messages.append(part["error"]["message"])
    return ", ".join(dict.fromkeys(words)), "; ".join(dict.fromkeys(messages))


def _last_warning(errors: str) -> str:
    lines = re.findall(r"^\S+ (?:warning|error) (?:\[run \d+\] )?(.*)$", errors, re.MULTILINE)
    return next((line for line in reversed(lines) if "trying again" not in line), "")


def run(environment: dict[str, str], directory: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process; return exit code, standard output and standard error."""
    output, errors = io.StringIO(), io.StringIO()
    code: str | int | None = None
    with (
        _as_if_started(environment, directory, arguments),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main.run()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return code, output.getvalue(), errors.getvalue()


@contextmanager
def _as_if_started(environment: dict[str, str], directory: Path, arguments: Sequence[str]) -> Iterator[None]:
    before = dict(os.environ), list(sys.argv), Path.cwd()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["atom-sync", *arguments]
    os.chdir(directory)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before[0])
        sys.argv[:] = before[1]
        os.chdir(before[2])
        sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__


def chosen(section: Section, *, quick: bool) -> list[Case]:
    """Return the faults to run a command against; with `quick`, all fast ones for the first section, else a seventh."""
    fitting = [case for case in cases() if section.endpoint in case.where]
    if not quick:
        return fitting
    fast = [case for case in fitting if not case.slow]
    return fast if section is SECTIONS[0] else fast[SECTIONS.index(section) % 5 :: 7]


HEAD = """# Behaviour under faults

Generated by `make fault-matrix`, which runs each command against each fault of the sandbox and records the result. A
test repeats part of it and fails if anything differs. *Retries* counts the pauses before retries (1, 2 and 4 s with
jitter, or as long as `Retry-After` requests). *Ended* is the status with its reasons, as in `--json`. *Kept* is what
the database contained afterwards, of {skills} cached skills and one unsent rating. For `watch`, exit code 0 means that
it was still running and retrying, and stopped cleanly on request. Requests are sent one at a time
(`ATOM_SAAS_SYNC_CONNECTIONS=1`): with several, the number of retries depends on the speed of the machine.

"""


def rows(bench: Bench, section: Section, wanted: Sequence[Case]) -> Iterator[str]:
    """Yield the lines of a section's table."""
    for case in wanted:
        out = bench.meet(section, case)
        cells = (case.label, str(out.retries), str(out.exit_code), out.ended, out.says, out.kept)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def write(*, quick: bool) -> Iterator[str]:
    """Yield the document, or with `quick` the part of it that a test repeats."""
    runtime.RunClock = QuickClock  # type: ignore[misc]
    # A tenth of the time goes into reading the annotations of the commands again.
    typer_main: Any = importlib.import_module("typer.main")
    typer_main.get_params_from_function = functools.cache(typer_main.get_params_from_function)
    with tempfile.TemporaryDirectory() as directory, Sandbox(skills=SKILLS, seed=3) as sandbox:
        bench = Bench(sandbox, Path(directory))
        met = {case.kind for section in SECTIONS for case in cases() if section.endpoint in case.where}
        assert met == set(KINDS), met ^ set(KINDS)
        yield HEAD.format(skills=SKILLS)
        for section in SECTIONS:
            yield f"## {section.title}\n\n| the marketplace | retries | exit | ended | message | kept |\n"
            yield "|---|---|---|---|---|---|\n"
            yield from rows(bench, section, chosen(section, quick=quick))
            yield "\n"


if __name__ == "__main__":
    for line in write(quick="--quick" in sys.argv[1:]):
        sys.stdout.write(line)
        sys.stdout.flush()
