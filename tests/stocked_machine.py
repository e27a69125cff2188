"""A machine with data for every command, and the command lines that read it."""

from __future__ import annotations

from command_lines import READING, REPORTING, minimal
from conftest import Machine

NAME = "café 日本 🔥"
EMPTY_LOCK = '{"lock_version": 1, "marketplace": "http://127.0.0.1", "skills": {}}'
LOCK = "skills.lock"
WAITING = {"ATOM_SYNC_ADMISSION": "review"}


def stock(machine: Machine) -> None:
    """Fill the database with something of everything, in many scripts."""

    def do(*arguments: str, **variables: str) -> None:
        ended = machine.command(*arguments, **variables)
        assert ended.returncode == 0, ended.stderr

    def fill() -> None:
        do("sync", "skills")
        edited, waiting, pinned, revoked, quarantined = machine.sandbox.skill_ids()[:5]
        machine.edit(edited, name=NAME, description="mine ✓")
        machine.sandbox.patch_skill(edited, {"description": "theirs ❌"})
        do("sync", "skills", "--strategy", "manual")
        machine.sandbox.patch_skill(waiting, {"name": NAME, "code": "print('日本')", "version": "9 ❌"})
        do("sync", "skills", "--strategy", "manual", **WAITING)
        do("pins", "add", pinned, "--note", NAME)
        do("revocations", "add", "--id", revoked, "--note", NAME)
        do("quarantine", "add", quarantined, "--note", NAME)
        do("ratings", "add", edited, "4", "--user", "Zoë", "--comment", NAME)

    machine.keep("something of everything", fill)
    (machine.directory / LOCK).write_text(EMPTY_LOCK, encoding="utf-8")


def reading_lines(machine: Machine) -> list[list[str]]:
    """Return a line for every command that reads, without and with --json, and one that fails."""
    edited, waiting, _, _, quarantined = machine.sandbox.skill_ids()[:5]
    skill_ids: dict[tuple[str, ...], str] = {("updates", "show"): waiting, ("quarantine", "show"): quarantined}
    numbers = dict.fromkeys(("conflict_id", "rating_id", "run_id"), "1")
    reading = {path: minimal(path, skill_id=skill_ids.get(path, edited), text="mine", **numbers) for path in READING}
    for path in (("lock", "check"), ("lock", "diff")):
        reading[path].append(LOCK)
    return [
        *reading.values(),
        *([*reading[path], "--json"] for path in REPORTING if path in reading),
        ["skills", "show", "no-such-skill ✓"],
        ["skills", "show", "no-such-skill ✓", "--json"],
    ]
