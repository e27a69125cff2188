"""Logging: three formats, the run in every line, and no secret in any."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from atom_saas_sync.errors import UsageError
from atom_saas_sync.logs import set_run_id, set_up_logging

SECRET = 'at_saas_s3cr3t+/="x'


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before
    set_run_id(None)


def _logged(line_format: str, say: object) -> str:
    stream = io.StringIO()
    log = set_up_logging("debug", line_format, secrets=[SECRET], stream=stream)
    assert callable(say)
    say(log)
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


@pytest.mark.parametrize("line_format", ["text", "json", "journal"])
@pytest.mark.parametrize(
    "say",
    [
        lambda log: log.info("token %s", SECRET),
        lambda log: log.info("token %r", {"a": SECRET}),
        lambda log: log.warning("url https://x/ws?token=%s&y=1", quote(SECRET, safe="")),
        lambda log: log.info("extra", extra={"header": f"Bearer {SECRET}"}),
        _raise_with_secret,
    ],
)
def test_the_secret_is_in_no_line(line_format: str, say: object) -> None:
    text = _logged(line_format, say)
    assert text
    assert "s3cr3t" not in text


def test_any_token_in_a_url_or_header_is_masked() -> None:
    text = _logged("text", lambda log: log.info("wss://h/ws?token=other123 Authorization: Bearer other123"))
    assert "other123" not in text


@pytest.mark.parametrize("line_format", ["text", "json", "journal"])
def test_the_run_is_in_every_line(line_format: str) -> None:
    def say(log: logging.Logger) -> None:
        set_run_id(42)
        log.info("one")
        log.error("two")

    lines = _logged(line_format, say).splitlines()
    assert len(lines) == 2
    assert all("42" in line for line in lines)


def test_json_is_one_object_a_line() -> None:
    line = json.loads(_logged("json", lambda log: log.error("a\nb", extra={"page": 3})))
    assert (line["level"], line["message"], line["page"]) == ("error", "a\nb", 3)
    assert line["time"].endswith("Z")


def test_journal_gives_each_line_its_priority() -> None:
    def say(log: logging.Logger) -> None:
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("first\nsecond")

    assert _logged("journal", say).splitlines() == ["<7>d", "<6>i", "<4>w", "<3>first", "<3>second"]


def test_auto_is_the_journal_only_if_the_stream_goes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(("level", "line_format"), [("loud", "text"), ("info", "xml")])
def test_wrong_options(level: str, line_format: str) -> None:
    with pytest.raises(UsageError):
        set_up_logging(level, line_format, secrets=[])
