"""`policy check` and `policy explain` on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Machine

RULES = """
[[rule]]
publisher = "acme-*"
admission = "open"
new = true

[[rule]]
skill_type = ["shell", "nodejs"]
admission = "age"
min_age = "7d"
"""


def test_check_shows_the_policy_without_a_database(machine: Machine) -> None:
    (machine.directory / "policy.toml").write_text(RULES)
    settings = {"ATOM_SYNC_ADMISSION": "review", "ATOM_SYNC_POLICY_FILE": "policy.toml", "ATOM_SYNC_MAX_CHANGED": "5%"}
    policy = json.loads(machine.command("policy", "check", "--json", **settings).stdout)["policy"]
    assert (policy["admission"], policy["scope"], policy["min_age"]) == ("review", "all", "72h")
    assert (policy["max_changed"], policy["locked"], policy["revocations"]) == ("5%", None, 0)
    assert policy["rules"] == [
        {"rule": 1, "publisher": ["acme-*"], "admission": "open", "min_age": None, "new": True},
        {"rule": 2, "skill_type": ["shell", "nodejs"], "admission": "age", "min_age": "7d", "new": False},
    ]
    told = machine.command("policy", "check", **settings).stdout.splitlines()
    assert told[-2:] == [
        "rule 1: publisher acme-*: open, also for new skills",
        "rule 2: skill_type shell or nodejs: age 7d",
    ]
    assert not machine.database.exists()


def test_check_names_all_problems_at_once(machine: Machine) -> None:
    (machine.directory / "policy.toml").write_text("[[rule]]\npublishers = 'a'\nid = 'a'\nadmission = 'open'\n")
    result = machine.command(
        "policy",
        "check",
        ATOM_SYNC_POLICY_FILE="policy.toml",
        ATOM_SYNC_REVOCATIONS_FILE="gone.json",
        ATOM_SYNC_SCAN_COMMAND="no-such-program --json",
    )
    assert (result.returncode, result.stdout) == (78, "")
    problems = [line for line in result.stderr.splitlines() if line.startswith("atom-sync: ATOM_SYNC_")]
    assert [problem.split()[1] for problem in problems] == [
        "ATOM_SYNC_POLICY_FILE:",
        "ATOM_SYNC_REVOCATIONS_FILE:",
        "ATOM_SYNC_SCAN_COMMAND:",
    ]
    assert "rule 1: unknown key 'publishers'" in problems[0]


def verdict(machine: Machine, skill_id: str, **variables: str) -> Any:
    result = machine.command("policy", "explain", skill_id, "--json", **variables)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["verdict"]


def test_explain_names_the_line_that_decides(machine: Machine) -> None:
    machine.pull()
    skill_id = min(machine.sandbox.skill_ids())
    found = verdict(machine, skill_id, ATOM_SYNC_ADMISSION="review")
    row = machine.sql("SELECT version, content_digest FROM usable_skill WHERE skill_id = ?", skill_id)[0]
    assert (found["version"], found["digest"]) == (row[0], f"sha256:{row[1]}")
    assert (found["verdict"], found["line"], found["policy"], found["rule"]) == ("admit", 6, "review", None)
    (machine.directory / "policy.toml").write_text(f"[[rule]]\nid = '{skill_id}'\nadmission = 'deny'\n")
    denied = verdict(machine, skill_id, ATOM_SYNC_POLICY_FILE="policy.toml")
    assert (denied["verdict"], denied["line"], denied["reason"], denied["rule"]) == ("refuse", 1, "denied", 1)
    told = machine.command("policy", "explain", skill_id, ATOM_SYNC_POLICY_FILE="policy.toml").stdout.splitlines()
    assert told[0].endswith(": refused, denied")
    assert told[1:] == [
        "line 1 in docs/TRUST.md: revoked, or a rule says deny",
        "why: denied by rule 1",
        "policy: deny, by rule 1 of the policy file",
    ]


@pytest.mark.parametrize(
    ("name", "why"), [("nobody", "has never shown a skill 'nobody'"), ("own", "local skills need no admission")]
)
def test_explain_knows_no_other_skills(machine: Machine, name: str, why: str) -> None:
    machine.pull()
    machine.command("skills", "import", "-", stdin='{"skill_id": "own", "name": "Own"}')
    result = machine.command("policy", "explain", name)
    assert (result.returncode, result.stdout) == (1, "")
    assert why in result.stderr


def test_explain_judges_with_the_last_valid_revocations_and_says_that_the_file_is_broken(machine: Machine) -> None:
    machine.pull()
    skill_id = min(machine.sandbox.skill_ids())
    (machine.directory / "revoked.json").write_text("{}")
    result = machine.command("policy", "explain", skill_id, ATOM_SYNC_REVOCATIONS_FILE="revoked.json")
    assert result.returncode == 0
    assert "no list `revocations`" in result.stderr


@pytest.mark.parametrize("variable", ["ATOM_SYNC_POLICY_FILE", "ATOM_SYNC_REVOCATIONS_FILE"])
def test_config_check_finds_what_a_sync_would_refuse(machine: Machine, variable: str) -> None:
    broken = {variable: str(machine.directory)}
    assert machine.command("sync", "skills", **broken).returncode == 78
    checked = machine.command("config", "check", "--json", **broken)
    assert checked.returncode == 78
    document = json.loads(checked.stdout)
    assert not document["success"] and len(document["problems"]) == 1
    assert document["problems"][0].startswith(f"{variable}: {machine.directory}: ")
