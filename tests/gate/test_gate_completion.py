"""Completion for the gate's commands: ids that wait, are pinned or in quarantine, and revocations."""

from __future__ import annotations

from command_lines import run_all
from conftest import Machine
from gate_support import hold, offered

NOW = "2026-02-01T12:00:00Z"


def test_completion_offers_what_each_gate_command_can_act_on(machine: Machine) -> None:
    machine.fill()
    served, quarantined, *_ = sorted(machine.sandbox.skill_ids())
    hold(machine, offered(machine, "@scope/new"))
    hold(machine, offered(machine, served, description="newer"))
    machine.sql("INSERT INTO gate_pin VALUES (?, x'00', '1.4.0', ?, 'me', NULL)", served, NOW)
    machine.sql(
        "INSERT INTO gate_quarantine SELECT skill_id, skill_data, NULL, x'00', 'quarantined', 'local', ?, 'me', NULL "
        "FROM skill_cache WHERE skill_id = ?",
        NOW,
        quarantined,
    )
    machine.sql("DELETE FROM skill_cache WHERE skill_id = ?", quarantined)
    revocation = "INSERT INTO gate_revocation (skill_id, version, digest, source, added_at, added_by) VALUES "
    machine.sql(f"{revocation} ('bad-one', '1.5.0', NULL, 'command', ?, 'me')", NOW)
    machine.sql(f"{revocation} (NULL, NULL, x'1f0a4c6e9b2d77', 'command', ?, 'me')", NOW)
    machine.sql(f"{revocation} ('from-the-file', NULL, NULL, 'file', ?, 'me')", NOW)
    named = f"--database {machine.database.url}"
    waiting = {"@scope/new": "review", served: "review"}
    offers = {
        "updates approve ": waiting,
        "updates show @": {"@scope/new": "review"},
        "pins remove ": {served: "1.4.0"},
        "quarantine release ": {quarantined: "quarantined"},
        "revocations remove ": {"1": "bad-one 1.5.0", "2": "1f0a4c6e9b2d"},
    }
    lines = [*offers, "policy explain "]
    results = run_all(machine.directory, [["__complete", *f"{named} {line}".split(" ")] for line in lines])
    assert [(code, err) for code, _, err in results] == [(0, "")] * len(lines)
    *found, explained = [dict(line.split("\t") for line in out.splitlines()) for _, out, _ in results]
    assert dict(zip(offers, found, strict=True)) == offers
    assert {*explained} == {"@scope/new", *machine.sandbox.skill_ids()}
