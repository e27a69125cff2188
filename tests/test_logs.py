"""Logging: three formats, the run in every line, and no secret in any."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from conftest import Machine
from hypothesis import example, given
from hypothesis import strategies as st
from loaded_command import start_command

from atom_saas_sync.characters import is_shown
from atom_saas_sync.cli.output import LOG_FORMATS, LOG_LEVELS, GlobalOptions, report_failure
from atom_saas_sync.errors import ConnectionFailed, UsageError
from atom_saas_sync.logs import set_run_id, set_up_logging

SECRET = "s3cr3t-+/=\"x'y\\z %"
FORMATS = ["text", "json", "journal"]


Say = Callable[[logging.Logger], object]


def _logged(line_format: str, say: Say, secret: str = SECRET, level: str = "debug") -> str:
    stream = io.StringIO()
    say(set_up_logging(level, line_format, secrets=[secret], stream=stream))
    return stream.getvalue()


def _raise_with_secret(log: logging.Logger) -> None:
    def inner() -> None:
        raise ValueError(f"inside {SECRET}")

    try:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError(f"outside {SECRET}") from error
    except RuntimeError:
        log.exception("it failed with %s", SECRET)


class _Talkative:
    """Shows the secret in every way that Python can show a value."""

    def __str__(self) -> str:
        return f"str {SECRET}"

    def __repr__(self) -> str:
        return f"repr {SECRET}"

    def __format__(self, _spec: str) -> str:
        return f"format {SECRET}"


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return a caught error, with a traceback whose frame has the secret in its variables."""
    token = SECRET
    headers = {"Authorization": f"Bearer {token}"}
    assert headers
    try:
        raise error from cause  # noqa: TRY301 - for its traceback
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


def _noted(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error


def _in_context(error: BaseException) -> BaseException:
    """Return an error that was raised while that one was handled."""
    try:
        try:
            raise error  # noqa: TRY301 - likewise
        except BaseException:  # noqa: BLE001 - whatever it is
            raise LookupError("while another was handled")  # noqa: B904 - that is the point
    except LookupError as caught:
        return caught


def _request() -> httpx.Request:
    headers = {"Authorization": f"Bearer {SECRET.encode('unicode_escape').decode()}"}
    return httpx.Request("GET", "https://x.example/ws", params={"token": SECRET, "other": SECRET}, headers=headers)


_ERRORS: dict[str, Callable[[], BaseException]] = {
    "args": lambda: ValueError(SECRET),
    "several args": lambda: ValueError("refused", {"token": SECRET}, [SECRET], SECRET.encode()),
    "key": lambda: KeyError(SECRET),
    "file name": lambda: OSError(2, "No such file", f"/run/{SECRET}", None, f"/run/2{SECRET}"),
    "cause": lambda: _raised(RuntimeError("outside"), _raised(ValueError(SECRET))),
    "context": lambda: _in_context(ValueError(SECRET)),
    "note": lambda: _noted(ValueError("x"), f"Authorization: Bearer {SECRET}"),
    "note of the cause": lambda: _raised(RuntimeError("outside"), _noted(ValueError("x"), f"sent {SECRET!r}")),
    "group": lambda: ExceptionGroup("several", [ValueError("x"), ExceptionGroup("y", [OSError(SECRET)])]),
    "name of a group": lambda: ExceptionGroup(f"several with {SECRET}", [_noted(ValueError("x"), SECRET)]),
    "our own": lambda: ConnectionFailed(f"GET /skills?token={quote_plus(SECRET)}: broken", hint=f"not {SECRET}"),
    "value": lambda: ValueError(_Talkative()),
    "url": lambda: httpx.InvalidURL(str(_request().url)),
    "request": lambda: httpx.RequestError(f"401 for {_request().url} with {_request().headers}", request=_request()),
    "header": lambda: httpx.LocalProtocolError(f"Illegal header value {b'Bearer ' + SECRET.encode()!r}"),
    "text": lambda: UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, f"not {SECRET}"),
    "json": lambda: json.JSONDecodeError(f"unexpected {SECRET}", f'{{"token": "{SECRET}"}}', 1),
    "exit": lambda: SystemExit(SECRET),
}


@pytest.mark.parametrize("line_format", FORMATS)
@pytest.mark.parametrize("place", _ERRORS)
@pytest.mark.parametrize(
    "say",
    [
        lambda log, error: log.error("it failed", exc_info=error),
        lambda log, error: log.error("it failed: %s", error),
        lambda log, error: log.error("it failed: %r", error),
        lambda log, error: log.error(error),
        lambda log, error: log.error("it failed", extra={"error": error, "errors": [error], "of": error.args}),
        lambda _log, error: logging.getLogger("asyncio").error("never retrieved", exc_info=(type(error), error, None)),
        lambda _log, error: sys.excepthook(type(error), error, error.__traceback__),
    ],
    ids=["exc_info", "str", "repr", "message", "extra", "asyncio", "excepthook"],
)
def test_the_secret_is_in_no_line_about_an_error(line_format: str, place: str, say: Any) -> None:
    error = _raised(_ERRORS[place]())
    text = _logged(line_format, lambda log: say(log, error))
    assert text
    assert "s3cr3t" not in text


@pytest.mark.parametrize("line_format", FORMATS)
def test_the_secret_is_not_in_uncatchable_errors(line_format: str) -> None:
    class Falling:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    def say(_log: logging.Logger) -> None:
        set_run_id(42)
        Falling()  # and gone
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=False)  # catch_warnings replaced our handler
            logging.captureWarnings(capture=True)
            warnings.warn(f"old {SECRET}", DeprecationWarning, stacklevel=1)

    text = _logged(line_format, say)
    assert "ValueError: ********" in text
    assert "DeprecationWarning: old ********" in text
    assert "s3cr3t" not in text
    assert all("42" in line for line in text.splitlines())


def test_output_without_logging_is_masked_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text", secrets=[SECRET])
    report_failure(ConnectionFailed(f"no way to {SECRET}\nand {quote(SECRET)}", hint=f"not {SECRET}"), as_json=True)
    told = capsys.readouterr()
    assert "s3cr3t" not in told.out + told.err
    assert told.err == "atom-sync: no way to ********\natom-sync: and ********\n  → not ********\n"
    assert json.loads(told.out)["error"]["message"] == "no way to ********\nand ********"


def _journal_of(machine: Machine, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """Run the real command with its standard error where systemd says that its journal is."""
    with (machine.directory / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        process = start_command(
            *arguments,
            environment=machine.environment(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}", **variables),
            directory=machine.directory,
            stderr=journal.fileno(),
        )
        process.communicate(60)
        journal.seek(0)
        return process.wait(), journal.read().splitlines()


@pytest.mark.parametrize("kind", ["skills", "categories"])
def test_in_the_journal_a_refused_token_is_one_line_of_the_right_priority(machine: Machine, kind: str) -> None:
    code, lines = _journal_of(machine, "sync", kind, ATOM_SAAS_API_TOKEN="at_saas_another")
    assert code == 77
    assert len(lines) == 1
    assert lines[0].startswith("<3>[run 1] GET /api/v1/")
    assert 'refused the token (401): "token refused" → check ATOM_SAAS_API_TOKEN' in lines[0]


def test_in_the_journal_a_hint_is_part_of_the_line() -> None:
    hint = f"do\nthis with {SECRET}"
    text = _logged("journal", lambda log: log.error("first\nsecond", extra={"hint": hint}))
    assert text == "<3>first → do this with ********\n<3>second\n"
    assert _logged("journal", lambda log: log.error("x", extra={"hint": None})) == "<3>x\n"


def test_in_the_journal_a_wrong_configuration_is_one_line(machine: Machine) -> None:
    done = _journal_of(machine, "sync", "skills", ATOM_SAAS_API_TOKEN="", ATOM_SAAS_SYNC_BATCH_SIZE="many")
    assert done == (78, [done[1][0]])
    assert done[1][0].startswith("<3>atom-sync: ATOM_SAAS_SYNC_BATCH_SIZE: invalid value 'many'")


@pytest.mark.parametrize("line_format", FORMATS)
@pytest.mark.parametrize(
    "say",
    [
        lambda log: log.info("token %s", SECRET),
        lambda log: log.info(SECRET),
        lambda log: log.info("token %r", {"a": SECRET}),
        lambda log: log.info("%s", json.dumps({"a": SECRET})),
        lambda log: log.info("%s", [json.dumps({"a": SECRET})]),
        lambda log: log.info("%s", SECRET.encode()),
        lambda log: log.warning("url https://x/ws?token=%s&y=1", quote(SECRET, safe="")),
        lambda log: log.warning("url https://x/ws?other=%s", quote(SECRET)),
        lambda log: log.warning("url https://x/ws?other=%s", quote(SECRET, safe="").lower()),
        lambda log: log.warning("form other=%s", quote_plus(SECRET)),
        lambda log: log.info("extra", extra={"header": f"Bearer {SECRET}"}),
        lambda log: log.info("extra", extra={"headers": {"Authorization": [f"Bearer {SECRET}"]}}),
        lambda log: log.error("it failed", exc_info=ValueError(SECRET)),
        lambda log: log.info("with the stack", stack_info=True, extra={"secret": SECRET}),
        lambda log: log.error("first\n%s", SECRET),
        lambda log: log.info("%d", SECRET),  # a line that can't be formatted
        lambda log: log.info("%s %s", *[SECRET]),
        _raise_with_secret,
    ],
)
def test_the_secret_is_in_no_line(line_format: str, say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    text = _logged(line_format, say)
    assert text
    assert "s3cr3t" not in text
    assert capsys.readouterr() == ("", "")


_SECRETS = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)


@given(secret=_SECRETS.filter(lambda text: not set("*t").intersection(text)), line_format=st.sampled_from(FORMATS))
@example(secret='":"message', line_format="json")
@example(secret="12345678", line_format="json")
def test_no_secret_is_in_any_line_and_json_stays_json(secret: str, line_format: str) -> None:
    def say(log: logging.Logger) -> None:
        extra = {"number": int(secret)} if secret.isdigit() else {"text": f"({secret})"}
        log.info('a %s "%s" %r ?token=%s"', secret, quote(secret), secret, secret, extra=extra)

    text = _logged(line_format, say, secret)
    if line_format == "json":
        document = json.loads(text)
        text = " ".join(str(value) for name, value in document.items() if name != "time")
    for form in (secret, quote(secret), repr(secret)[1:-1]):
        assert form not in text


def test_an_unformattable_log_line_reports_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    text = _logged("journal", lambda log: log.error("%d", SECRET))
    assert text.startswith("<3>could not format a log record: test_logs.py:")


class _Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_under_the_log_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info", "text", secrets=[], stream=_Full()).info("hello")
    assert capsys.readouterr() == ("", "")


def _crash_here() -> None:
    raise RuntimeError(f"a bug with {SECRET}")


@pytest.mark.parametrize("line_format", FORMATS)
def test_the_secret_is_not_in_the_traceback_of_a_bug(line_format: str) -> None:
    def crash(_log: logging.Logger) -> None:
        set_run_id(42)
        try:
            _crash_here()
        except RuntimeError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        thread = threading.Thread(target=_crash_here)
        thread.start()
        thread.join()

    text = _logged(line_format, crash)
    assert text.count("a bug ended the program") == 2
    assert text.count("in _crash_here") == 2
    assert text.count("RuntimeError: a bug with ********") == 2
    assert "s3cr3t" not in text
    assert "42" in text
    if line_format == "journal":
        assert all(line.startswith("<2>") for line in text.splitlines())


def test_a_bug_of_the_real_command_is_masked_too(tmp_path: Path) -> None:
    program = f"""
import sys
from atom_saas_sync.config import load_settings
from atom_saas_sync.logs import set_up_logging
from atom_saas_sync.cli.main import app, run
@app.command()
def break_down():
    set_up_logging("info", "text", secrets=[{SECRET!r}])
    raise RuntimeError({SECRET!r})
sys.argv = ["atom-sync", "break-down"]
run()
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "a bug ended the program" in result.stderr
    assert "RuntimeError: ********" in result.stderr
    assert "s3cr3t" not in result.stdout + result.stderr


@pytest.mark.parametrize("line_format", FORMATS)
@pytest.mark.parametrize(
    "text",
    [
        "wss://h/ws?token=other123",
        'wss://h/ws?a=1&token=other123"',
        "Authorization: Bearer other123",
        "{'Authorization': 'Bearer other123'}",
        '{"Authorization": "Bearer other123"}',
        '{\\"Authorization\\": \\"Bearer other123\\"}',
        "[(b'authorization', b'Bearer other123')]",
        "X-API-Token: other123",
        "{'X-Federation-Key': 'other123'}",
        "[(b'x-api-token', b'other123')]",
        "the old one was at_saas_other123.",
    ],
)
def test_any_token_in_a_url_or_header_is_masked(line_format: str, text: str) -> None:
    logged = _logged(line_format, lambda log: log.info("%s", text))
    assert "other123" not in logged
    if line_format == "json":
        assert "********" in json.loads(logged)["message"]


def test_text_that_only_mentions_tokens_is_not_masked() -> None:
    said = "a token that begins with at_saas_, a UUID; the bearer of this; ?page=2"
    assert json.loads(_logged("json", lambda log: log.info("%s", said)))["message"] == said


@pytest.mark.parametrize("line_format", FORMATS)
def test_the_run_is_in_every_line(line_format: str) -> None:
    def say(log: logging.Logger) -> None:
        set_run_id(42)
        log.info("one\ntwo")
        log.error("three", exc_info=ValueError("four"))

    lines = _logged(line_format, say).splitlines()
    assert len(lines) == (2 if line_format == "json" else 4)
    for line in lines:
        assert json.loads(line)["run_id"] == 42 if line_format == "json" else "[run 42] " in line


def test_lines_outside_a_run_have_no_run_id() -> None:
    assert "run_id" not in json.loads(_logged("json", lambda log: log.info("one")))
    assert "run" not in _logged("text", lambda log: log.info("one"))


def test_log_lines_of_prefetching_threads_name_the_run(machine: Machine) -> None:
    machine.database.prepare()  # a server's tables are made before the run begins, and that is logged
    machine.sandbox.fault("error", endpoint="list", status=503, times=1)
    result = machine.command("--log-format", "json", "sync", "skills", "--json", "-v")
    run_id = json.loads(result.stdout)["run_id"]
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert any("trying again" in line["message"] for line in lines)
    assert {line["run_id"] for line in lines} == {run_id}


def test_text_for_people() -> None:
    def say(log: logging.Logger) -> None:
        log.warning("first\nsecond\x1b[2J\u2028third\ttab\x07\u202e")

    text = _logged("text", say)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ warning first\n  second�\[2J\n  third\ttab��\n", text), text


@pytest.mark.parametrize(
    ("variables", "colour"),
    [
        ({}, False),  # no terminal
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"FORCE_COLOR": ""}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": ""}, True),
    ],
)
def test_colour(variables: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[31merror\x1b[0m" in _logged("text", lambda log: log.error("x"))) is colour
    assert "\x1b" not in _logged("json", lambda log: log.error("x")) + _logged("journal", lambda log: log.error("x"))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "colour"), [("xterm", True), ("dumb", False)])
def test_colour_on_a_terminal(term: str, colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    stream = _Terminal()
    set_up_logging("info", "text", secrets=[], stream=stream).error("x")
    assert ("\x1b" in stream.getvalue()) is colour


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")],
)
def test_levels(level: str, said: str) -> None:
    def say(log: logging.Logger) -> None:
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("e")

    lines = [json.loads(line) for line in _logged("json", say, level=level).splitlines()]
    assert "".join(line["message"] for line in lines) == said


@pytest.mark.parametrize(("level", "said"), [("debug", "we"), ("info", "we"), ("error", "e")])
def test_libraries_that_chat_are_heard_from_warnings_on(level: str, said: str) -> None:
    def say(_log: logging.Logger) -> None:
        chatty = logging.getLogger("httpx")
        chatty.info("i")
        chatty.warning("w")
        chatty.error("e")

    lines = [json.loads(line) for line in _logged("json", say, level=level).splitlines()]
    assert "".join(line["message"] for line in lines) == said


def test_there_is_one_handler_however_often_it_is_set_up() -> None:
    for _ in range(3):
        set_up_logging("info", "text", secrets=[], stream=io.StringIO())
    assert len(logging.getLogger().handlers) == 1


def test_json_is_one_object_a_line() -> None:
    extra = {"page": 3, "share": 0.5, "none": None, "odd": float("nan"), "level": "forged", "path": Path("x")}
    text = _logged("json", lambda log: log.error("a\nb\ud800", extra=extra))
    assert text.count("\n") == 1
    line = json.loads(text, parse_constant=pytest.fail)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "error",
        "logger": "atom_saas_sync",
        "message": "a\nb\ud800",
        "page": 3,
        "share": 0.5,
        "none": None,
        "odd": "nan",
        "path": "x",
    }


def test_journal_gives_each_line_its_priority() -> None:
    def say(log: logging.Logger) -> None:
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("first\nsecond\x1b[0m")
        log.critical("c", exc_info=ValueError("v"))
        log.info("")

    assert _logged("journal", say).splitlines() == [
        "<7>d",
        "<6>i",
        "<4>w",
        "<3>first",
        "<3>second�[0m",
        "<2>c",
        "<2>ValueError: v",
        "<6>",
    ]


def test_auto_means_journal_only_if_the_stream_is_connected_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "err").open("w+") as stream:
        status = os.fstat(stream.fileno())
        for value, starts in ((f"{status.st_dev}:{status.st_ino}", "<6>"), ("1:2", "")):
            monkeypatch.setenv("JOURNAL_STREAM", value)
            stream.truncate(0)
            stream.seek(0)
            set_up_logging("info", "auto", secrets=[], stream=stream).info("hello")
            stream.seek(0)
            text = stream.read()
            assert text.startswith(starts)
            assert text.startswith("<") is bool(starts)


def test_the_command_offers_what_there_is() -> None:
    for line_format in LOG_FORMATS:
        for level in LOG_LEVELS:
            set_up_logging(level, line_format, secrets=[], stream=io.StringIO())


@pytest.mark.parametrize(("level", "line_format"), [("loud", "text"), ("info", "xml")])
def test_wrong_options(level: str, line_format: str) -> None:
    with pytest.raises(UsageError):
        GlobalOptions(log_level=level, log_format=line_format)


@pytest.mark.parametrize("line_format", ["text", "json", "journal"])
def test_no_line_holds_what_a_terminal_acts_on_or_hides(line_format: str) -> None:
    stream = io.StringIO()
    hostile = "\x9b31m \x7f \x1b[2J \u202egnp \u200b \u2028 \u3164 \U000e0101 \x85 \ufe0f"
    log = set_up_logging("info", line_format, secrets=[], stream=stream)
    log.warning("skipped %s", hostile, extra={"hint": hostile})
    lines = stream.getvalue().split("\n")
    assert lines.pop() == ""
    assert all(is_shown(character) for line in lines for character in line), lines
    if line_format == "json":
        assert [json.loads(line)["message"] for line in lines] == [f"skipped {hostile}"]
