"""Standard streams in every state: encoding, buffering, closed, full."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from command_lines import clean_environment
from conftest import Machine
from stocked_machine import NAME, WAITING, reading_lines, stock

# Runs each command line in one process, with the streams as they are at the start: only their state is looked at.
IN_TURN = """
import contextlib, functools, json, locale, os, sys, tempfile, traceback
import typer.main
from atom_saas_sync.cli.main import run

# Half of a short command's time is spent reading its function's annotations.
typer.main.get_params_from_function = functools.cache(typer.main.get_params_from_function)

given = json.load(sys.stdin)
closed = given["closed"]
told = os.dup(1)
started = sys.stdin, sys.stdout, sys.stderr
kept = []  # a stream that is collected closes its descriptor, which is the next one's

def run_with_new_streams(arguments):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdin, sys.stdout, sys.stderr = started
        if closed is not None:
            with contextlib.suppress(OSError):
                os.close(closed)
            setattr(sys, ("stdin", "stdout", "stderr")[closed], None)
        sys.argv = ["atom-sync", *arguments]
        try:
            run()
        except SystemExit as end:
            code = end.code
        except BaseException:
            code = 99
            os.write(err.fileno(), traceback.format_exc().encode())
        sys.stdout.flush()
        sys.stderr.flush()
        kept.append((sys.stdin, sys.stdout, sys.stderr))
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("latin-1"))
        return [code, *texts]

results = [run_with_new_streams(arguments) for arguments in given["command_lines"]]
os.write(told, json.dumps({"encoding": locale.getencoding(), "results": results}).encode())
os._exit(0)
"""
CODES = {("doctor",): {0, 1}, ("lock", "check"): {4}}  # the lock file lists nothing

Ended = tuple[int, bytes, str]


@pytest.fixture
def stocked(machine: Machine) -> Machine:
    """Return a machine with data for every command, in many scripts."""
    stock(machine)
    return machine


def run_in_turn(
    machine: Machine, lines: list[list[str]], *, closed: int | None = None, variables: dict[str, str] | None = None
) -> tuple[str, list[Ended]]:
    result = subprocess.run(
        [sys.executable, "-c", IN_TURN],
        env=machine.environment(COLUMNS="100", **WAITING, **(variables or {})),
        cwd=machine.directory,
        input=json.dumps({"command_lines": lines, "closed": closed}).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    ended = [(code, out.encode("latin-1"), err) for code, out, err in document["results"]]
    return document["encoding"], ended


def latin_1(directory: Path) -> dict[str, str]:
    """Make a locale whose encoding is ISO-8859-1, from sources of our own: few machines have those of glibc."""
    characters = "\n".join(f"<U{number:04X}> /x{number:02x}" for number in range(256))
    (directory / "charmap").write_text(
        "<code_set_name> ISO-8859-1\n<comment_char> %\n<escape_char> /\n<mb_cur_min> 1\n<mb_cur_max> 1\n"
        f"CHARMAP\n{characters}\nEND CHARMAP\n"
    )
    upper = ";".join(f"<U{number:04X}>" for number in range(ord("A"), ord("Z") + 1))
    (directory / "source").write_text(f"comment_char %\nescape_char /\nLC_CTYPE\nupper {upper}\nEND LC_CTYPE\n")
    (directory / "locales").mkdir()
    made = directory / "locales" / "latin1"
    # It warns of the categories that are missing, and ends with 1.
    subprocess.run(
        ["localedef", "-c", "-f", str(directory / "charmap"), "-i", str(directory / "source"), str(made)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return {"LOCPATH": str(made.parent), "LC_CTYPE": "latin1"}


CONDITIONS: dict[str, tuple[dict[str, str], str]] = {  # and the encoding of the output
    "LC_ALL=C": ({"LC_ALL": "C"}, "utf-8"),
    "ASCII": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
    "ISO-8859-1": ({}, "iso-8859-1"),
    "PYTHONIOENCODING": ({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}, "ascii"),
    "PYTHONUNBUFFERED": ({"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}, "utf-8"),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_reading_command_in_every_encoding(stocked: Machine, tmp_path: Path, condition: str) -> None:
    variables, printed = CONDITIONS[condition]
    if condition == "ISO-8859-1":
        variables = latin_1(tmp_path)
    # Output is the same in every UTF-8 locale, so some commands are enough there.
    lines = reading_lines(stocked)[:: 4 if printed == "utf-8" else 1]
    encoding, results = run_in_turn(stocked, lines, variables=variables)
    assert encoding == condition or condition != "ISO-8859-1"
    check_all(lines, results, printed)


@pytest.mark.parametrize("closed", [0, 1, 2], ids=["stdin", "stdout", "stderr"])
def test_every_reading_command_with_a_closed_stream(stocked: Machine, closed: int) -> None:
    lines = reading_lines(stocked)[:: 4 if closed == 0 else 1]  # none of them reads it
    _, results = run_in_turn(stocked, lines, closed=closed)
    check_all(lines, results, "utf-8", closed=closed)


def check_all(lines: list[list[str]], results: list[Ended], encoding: str, *, closed: int | None = None) -> None:
    for words, (code, out, err) in zip(lines, results, strict=True):
        told = (words, code, out, err)
        wanted = CODES.get(tuple(words[:2]), CODES.get(tuple(words[:1]), {0}))
        wanted = {1} if "no-such-skill ✓" in words else wanted
        assert code in wanted, told
        assert "Traceback" not in err and "a bug" not in err, told
        if closed == 1:
            assert out == b"", told
            continue
        # Where the encoding is ASCII, Typer takes it for a mistake and prints UTF-8.
        text = out.decode("utf-8" if encoding == "ascii" else encoding)
        if "--json" in words:
            document = json.loads(text)
            if words[:2] == ["skills", "list"]:
                assert NAME in {skill["name"] for skill in document["skills"]}, told
        elif wanted == {0}:
            assert text.strip() or words[:2] == ["ratings", "failed"], told


def run_real(directory: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the real command with standard streams of the test's."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    variables = options.pop("variables", {})
    return subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", *arguments],
        env=clean_environment(directory, **variables),
        cwd=directory,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_not_written_whole_is_74(tmp_path: Path, unbuffered: str) -> None:
    """A file that may not grow takes the first bytes of what is written, as a full disk does."""
    limited = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
    limited += "os.execv(sys.executable, [sys.executable, '-m', 'atom_saas_sync', 'metrics'])"
    with (tmp_path / "out").open("wb") as out:
        result = subprocess.run(
            [sys.executable, "-c", limited],
            env=clean_environment(tmp_path, PYTHONUNBUFFERED=unbuffered, PYTHONDONTWRITEBYTECODE="1"),
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert result.returncode == 74
    assert result.stderr.splitlines()[-1] == b"atom-sync: can't write: File too large"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_does_not_block_gets_everything(tmp_path: Path, unbuffered: str) -> None:
    whole = run_real(tmp_path, "schedule", "systemd").stdout
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    assert len(whole) > 2 * 4096
    got: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as stream:
            got.append(stream.read())

    thread = threading.Thread(target=read)
    thread.start()
    result = run_real(tmp_path, "schedule", "systemd", stdout=writer, variables={"PYTHONUNBUFFERED": unbuffered})
    os.close(writer)
    thread.join(30)
    assert result.returncode == 0, result.stderr
    assert got == [whole]


@pytest.mark.parametrize(("arguments", "code"), [(["status"], 0), (["nonsense"], 2), (["skills", "list"], 74)])
def test_standard_error_that_is_full_or_closed_changes_no_exit_code(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    with Path("/dev/full").open("wb") as full:
        assert run_real(tmp_path, *arguments, stderr=full).returncode == code
    reader, writer = os.pipe()
    os.close(reader)
    assert run_real(tmp_path, *arguments, stderr=writer).returncode == code
    os.close(writer)
    assert run_real(tmp_path, *arguments, preexec_fn=lambda: os.close(2)).returncode == code


def test_a_closed_standard_input_is_an_empty_one(tmp_path: Path) -> None:
    def close() -> None:
        with contextlib.suppress(OSError):
            os.close(0)

    for arguments in (["skills", "import", "-"], ["conflicts", "resolve", "1", "--data", "-"]):
        result = run_real(tmp_path, *arguments, preexec_fn=close)
        assert b"Traceback" not in result.stderr and b"a bug" not in result.stderr, result.stderr
        assert result.returncode in {0, 1, 2, 74}


@pytest.mark.parametrize(
    ("editor", "message"),
    [("vi '", "is not a command"), (" ", "no editor is set"), ("no-such-editor", "can't be started")],
)
def test_an_unusable_editor_is_an_error(machine: Machine, editor: str, message: str) -> None:
    machine.pull()
    result = machine.command("skills", "edit", machine.sandbox.skill_ids()[0], EDITOR=editor)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr
    # The next variable is used where the first is blank.
    assert machine.command("skills", "edit", machine.sandbox.skill_ids()[0], VISUAL=" ", EDITOR="true").returncode == 0


@pytest.mark.parametrize("arguments", ["--install-completion bash", "--install-completion"])
def test_completion_without_a_home(tmp_path: Path, arguments: str) -> None:
    """From a shell: Typer looks for one among the processes that started it."""
    blocked = tmp_path / "home"
    blocked.touch()
    for home in (str(blocked), "/dev/null/home"):
        result = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m atom_saas_sync {arguments}; exit $?"],
            env=clean_environment(tmp_path, HOME=home),
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"Traceback" not in result.stderr and b"a bug" not in result.stderr, result.stderr
        assert result.returncode == 74, result.stderr


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        (["skills", "show"], b"caf\xe9"),
        (["skills", "show"], b"--name=\xc3"),
        (["db", "backup"], b"\xff"),
        (["ratings", "add", "x", "5", "--comment"], b"a\x80b"),
    ],
)
def test_an_undecodable_argument_is_wrong_usage(tmp_path: Path, command: list[str], argument: bytes) -> None:
    result = run_real(tmp_path, *command, os.fsdecode(argument), "--json", variables={"PYTHONUTF8": "1"})
    assert result.returncode == 2
    assert json.loads(result.stdout)["error"]["type"] == "usage"
    assert b"is not valid UTF-8" in result.stderr and b"Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
