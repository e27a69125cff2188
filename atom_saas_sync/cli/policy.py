"""`policy`: which versions are admitted, and why a skill is served or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import counted, note, print_json, say
from atom_saas_sync.errors import ConfigError

if TYPE_CHECKING:
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.gate.types import Policy, Rule
    from atom_saas_sync.usecases.gate.explaining import Explained

app = typer.Typer(help="Check the admission policy, and explain its verdicts.", no_args_is_help=True)

_DIGITS = 12
_DONE = {"admit": "admitted", "hold": "held", "refuse": "refused"}

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def check(ctx: typer.Context, as_json: _Json = False) -> None:
    """Check the settings and files of the policy, and show what is in force."""
    from atom_saas_sync.cli import runtime

    settings = runtime.load(ctx.obj)
    policy, revocations = read_policy(settings)
    if as_json:
        print_json({"policy": _document(settings, policy, revocations)})
        return
    changed = settings.max_changed or "no limit"
    for name, value in (
        ("admission", settings.admission + (f", {settings.min_age}" if settings.admission == "age" else "")),
        ("scope", settings.admission_scope),
        ("changed skills in one run", changed),
        ("policy file", _file(settings.policy_file, counted(len(policy.rules), "rule"))),
        (
            "lock file",
            _file(settings.lock_file, counted(len(policy.lock.skills), "skill") if policy.lock else "not used"),
        ),
        ("revocations file", _file(settings.revocations_file, counted(revocations, "revocation"))),
        ("scan command", settings.scan_command or "-"),
    ):
        say(f"{name + ':':27}{value}")
    for rule in policy.rules:
        say(f"rule {rule.number}: {_described(rule)}")


@app.command()
def explain(
    ctx: typer.Context,
    skill_id: Annotated[str, typer.Argument(metavar="ID", help="The skill's id, or its first 4 or more characters.")],
    as_json: _Json = False,
) -> None:
    """Explain why a skill is served, held or refused."""
    from atom_saas_sync.cli.gate_session import open_desk_and_resolve
    from atom_saas_sync.cli.identify import whole_judged_id
    from atom_saas_sync.usecases.gate import explaining

    with open_desk_and_resolve(ctx.obj, skill_id, whole_judged_id) as (desk, whole):
        found = explaining.explain(desk, whole, datetime.now(UTC))
    if as_json:
        print_json({"verdict": _verdict(found)})
    else:
        _print(found)
    if found.problem:
        note(found.problem)


def read_policy(settings: Settings) -> tuple[Policy, int]:
    """Return the policy in force, and how many revocations its file lists. Raises ConfigError with all problems."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.config.gate import SettingsFiles, policy_of, require_scanner
    from atom_saas_sync.core.gate.revocations import parse_revocations
    from atom_saas_sync.usecases.gate.loading import load_policy

    policy, files, problems, revocations = policy_of(settings), SettingsFiles(settings), [], 0
    try:
        policy = load_policy(policy, files)
    except ConfigError as error:
        problems.append(error)
    try:
        file = files.revocations()
        revocations = 0 if file is None else len(parse_revocations(file[1], file[0]))
    except ConfigError as error:
        problems.append(error)
    try:
        require_scanner(policy.scan_command, runtime.environment_for_others())
    except ConfigError as error:
        problems.append(error)
    if problems:
        raise ConfigError("\n".join(error.message for error in problems), hint=problems[0].hint)
    return policy, revocations


def _document(settings: Settings, policy: Policy, revocations: int) -> dict[str, Any]:
    from atom_saas_sync.core.durations import age_text

    return {
        "admission": settings.admission,
        "scope": settings.admission_scope,
        "min_age": settings.min_age,
        "max_changed": settings.max_changed,
        "policy_file": settings.policy_file and str(settings.policy_file),
        "lock_file": settings.lock_file and str(settings.lock_file),
        "revocations_file": settings.revocations_file and str(settings.revocations_file),
        "scan_command": settings.scan_command,
        "rules": [
            {
                "rule": rule.number,
                **{name: list(patterns) for name, patterns in rule.conditions.items()},
                "admission": rule.admission,
                "min_age": None if rule.min_age is None else age_text(rule.min_age),
                "new": rule.new,
            }
            for rule in policy.rules
        ],
        "locked": None if policy.lock is None else len(policy.lock.skills),
        "revocations": revocations,
    }


def _file(path: object, content: str) -> str:
    return "-" if path is None else f"{path} ({content})"


def _described(rule: Rule) -> str:
    from atom_saas_sync.core.durations import age_text

    conditions = ", ".join(f"{name} {' or '.join(patterns)}" for name, patterns in rule.conditions.items())
    age = "" if rule.min_age is None else f" {age_text(rule.min_age)}"
    return f"{conditions}: {rule.admission}{age}{', also for new skills' if rule.new else ''}"


def _verdict(found: Explained) -> dict[str, Any]:
    from atom_saas_sync.core.canonical import version_key
    from atom_saas_sync.core.gate.digests import digest_text
    from atom_saas_sync.core.gate.verdict import LINES
    from atom_saas_sync.times import format_time

    verdict = found.verdict
    return {
        "skill_id": found.version.skill_id,
        "version": version_key(found.version.fields) or None,
        "digest": digest_text(found.version.content_digest),
        "offered": found.offered,
        "verdict": verdict.kind,
        "line": verdict.line,
        "condition": LINES[verdict.line - 1].condition,
        "reason": verdict.reason,
        "note": verdict.note,
        "due_at": None if verdict.due_at is None else format_time(verdict.due_at),
        "policy": found.ruling.admission,
        "rule": found.ruling.rule,
    }


def _print(found: Explained) -> None:
    document = _verdict(found)
    digits = found.version.content_digest.hex()[:_DIGITS]
    name = f"{document['skill_id']} {document['version'] or '-'} (sha256:{digits})"
    reason = f", {document['reason']}" if document["reason"] else ""
    say(f"{printable(name)}: {_DONE[found.verdict.kind]}{reason}")
    say(f"line {document['line']} in docs/TRUST.md: {document['condition'].replace('`', '')}")
    if document["note"]:
        say(f"why: {document['note']}")
    if document["due_at"]:
        say(f"due: {document['due_at']}")
    rule = "the settings" if found.ruling.rule is None else f"rule {found.ruling.rule} of the policy file"
    say(f"policy: {found.ruling.admission}, by {rule}")
