"""The scan command as a process (usecases/ports/gate_edges.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from atom_saas_sync.errors import ConfigError, Interrupted
from atom_saas_sync.scanner import CommandScanner

Results = dict[str, tuple[bool, str | None, bool]]


def _scan(script: str, *ids: str, environment: Mapping[str, str] = os.environ, seconds: float = 30) -> Results:
    scanner = CommandScanner(["/bin/sh", "-c", script], environment, seconds_each=seconds)
    results = scanner.scan([(each, each.encode()) for each in ids], check=_go)
    return {name: (passed, note, timed_out) for name, passed, note, timed_out in results}


def _go() -> None:
    """Nothing shall end it."""


def test_exit_0_passes_and_anything_else_holds_with_the_first_printable_line() -> None:
    script = r"""read -r id; printf '\n \t\n\033[31m%s is bad\n more' "$id"; test "$id" = good"""
    found = _scan(script, "good", "evil")
    assert found["good"][0] is True
    assert found["evil"] == (False, "\ufffd[31mevil is bad", False)


def test_without_output_the_note_says_how_the_command_ended() -> None:
    assert _scan("exit 7", "a") == {"a": (False, "the scan command ended with 7", False)}


def test_a_command_that_does_not_read_and_writes_much_passes() -> None:
    scanner = CommandScanner(["/bin/sh", "-c", "head -c 3000000 /dev/zero"], os.environ)
    (result,) = scanner.scan([("a", b"x" * 3_000_000)], check=_go)
    assert result == ("a", True, result[2], False)


def test_one_that_takes_too_long_is_killed_with_its_children() -> None:
    began = time.monotonic()
    found = _scan("sleep 60 & sleep 60", "a", seconds=0.2)
    assert time.monotonic() - began < 30  # children that live on keep the output open
    assert found == {"a": (False, "the scan command took longer than 0.2 s", True)}


def test_it_gets_only_the_environment_that_it_was_given() -> None:
    found = _scan('echo "$SECRET-$PATH"; false', "a", environment={"PATH": "/bin"})
    assert found["a"][1] == "-/bin"


def test_a_program_that_is_not_there_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="cannot run '/does/not/exist': No such file"):
        list(CommandScanner(["/does/not/exist"], {}).scan([("a", b"")], check=_go))


def test_a_signal_ends_all_of_them(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def check() -> None:
        if ready.exists():
            raise Interrupted(15)

    scanner = CommandScanner(["/bin/sh", "-c", f"touch {ready}; sleep 60"], os.environ)
    with pytest.raises(Interrupted):
        list(scanner.scan([("a", b""), ("b", b"")], check=check))


def test_after_the_time_for_one_run_no_more_are_started() -> None:
    scanner = CommandScanner(["/bin/sh", "-c", "true"], os.environ, seconds_in_all=0)
    assert list(scanner.scan([("a", b"")], check=_go)) == []
