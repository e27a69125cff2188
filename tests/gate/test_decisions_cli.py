"""Decisions: `updates approve` and `reject`, `pins`, `revocations`, `quarantine`, on the command line and over HTTP."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
from conftest import Json, Machine, on_a_terminal
from gate_support import FIRST_SEEN, hold, offered
from web_support import ADMIN_TOKEN, served

from atom_saas_sync.cli import review
from atom_saas_sync.cli.gate_session import open_desk
from atom_saas_sync.cli.output import GlobalOptions

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def ids(machine: Machine) -> list[str]:
    """Return three skills: an update of each waits, with the description `newer`."""
    machine.fill()
    ids = machine.sandbox.skill_ids()[:3]
    for skill_id in ids:
        hold(machine, offered(machine, skill_id, description="newer"))
    return ids


def run_json(machine: Machine, *arguments: str, code: int = 0, stdin: str = "") -> Json:
    result = machine.command(*arguments, "--json", stdin=stdin)
    assert result.returncode == code, (result.stdout, result.stderr)
    document: Json = json.loads(result.stdout)
    assert document["success"] is (code == 0)
    return document


def waiting(machine: Machine) -> dict[str, str]:
    updates = run_json(machine, "updates", "list")["updates"]
    return {each["skill_id"]: each["offered_digest"] for each in updates}


def descriptions(machine: Machine, ids: list[str]) -> list[str | None]:
    cached = machine.cached()
    return [cached[each]["description"] if each in cached else None for each in ids]


def test_exactly_the_version_that_waits_is_approved_and_served(machine: Machine, ids: list[str]) -> None:
    digests = waiting(machine)
    typed = f"{ids[0]}@{digests[ids[0]].removeprefix('sha256:')[:12]}"
    document = run_json(machine, "updates", "approve", typed, "--note", "fine")
    assert document["approved"] == [{"skill_id": ids[0], "digest": digests[ids[0]]}]
    assert document["refused"] == []
    assert descriptions(machine, ids)[0] == "newer"
    assert list(waiting(machine)) == ids[1:]
    [row] = machine.sql("SELECT admitted_by, content_digest FROM usable_skill WHERE skill_id = ?", ids[0])
    assert row == (ME, digests[ids[0]].removeprefix("sha256:"))
    # Again: it is already served.
    run_json(machine, "updates", "approve", f"{ids[0]}@{digests[ids[0]]}")


def test_replaced_and_unknown_updates_are_refused_and_the_others_decided(machine: Machine, ids: list[str]) -> None:
    old = waiting(machine)
    hold(machine, offered(machine, ids[1], description="newest"))
    document = run_json(
        machine, "updates", "approve", f"{ids[0]}@{old[ids[0]]}", f"{ids[1]}@{old[ids[1]]}", "nowhere", code=4
    )
    assert [each["skill_id"] for each in document["approved"]] == [ids[0]]
    assert document["refused"] == [
        {"skill_id": ids[1], "reason": "changed"},
        {"skill_id": "nowhere", "reason": "not_waiting"},
    ]
    assert "newest" not in descriptions(machine, ids)
    told = machine.command("updates", "approve", "nowhere")
    assert told.returncode == 4
    assert "refused: nowhere: not_waiting (nothing waits for a decision)" in told.stderr


def test_an_id_is_split_at_its_last_at_sign_only_if_the_whole_is_not_an_id(machine: Machine) -> None:
    machine.fill()
    odd = ["@scope/name", "a@b", "a", f"a@{'abc' * 4}", "@scope", "x@1.0.0"]
    digest = {each: hold(machine, offered(machine, each)).removeprefix("sha256:") for each in odd}
    typed = [f"@scope/name@{digest['@scope/name'][:12]}", f"a@b@sha256:{digest['a@b']}", *odd[3:], f"a@{digest['a']}"]
    document = run_json(machine, "updates", "approve", *typed)
    assert {each["skill_id"]: each["digest"] for each in document["approved"]} == {
        each: f"sha256:{digest[each]}" for each in odd
    }
    for text in ("@scope/name", "a@b@1.0.0", "x@1.0.0"):
        assert machine.command("pins", "add", text).returncode == 0, text
    pins = run_json(machine, "pins", "list")["pins"]
    assert [each["skill_id"] for each in pins] == ["@scope/name", "a@b", "x@1.0.0"]


def test_a_rejected_version_waits_no_longer_and_may_still_be_approved(machine: Machine, ids: list[str]) -> None:
    digest = waiting(machine)[ids[0]]
    assert run_json(machine, "updates", "reject", ids[0])["rejected"] == [{"skill_id": ids[0], "digest": digest}]
    assert ids[0] not in waiting(machine)
    assert descriptions(machine, ids)[0] != "newer"
    run_json(machine, "updates", "approve", f"{ids[0]}@{digest}")
    assert descriptions(machine, ids)[0] == "newer"


def test_a_file_names_exactly_its_digests(machine: Machine, ids: list[str]) -> None:
    listed = run_json(machine, "updates", "list")
    hold(machine, offered(machine, ids[2], description="newest"))
    listed["updates"] = [each for each in listed["updates"] if each["skill_id"] != ids[1]]
    listed["updates"].append({"skill_id": "gone", "offered_digest": listed["updates"][0]["offered_digest"]})
    (machine.directory / "waiting.json").write_text(json.dumps(listed))
    document = run_json(machine, "updates", "approve", "--from", "waiting.json", code=4)
    assert [each["skill_id"] for each in document["approved"]] == [ids[0]]
    reasons = {each["skill_id"]: each["reason"] for each in document["refused"]}
    assert reasons == {ids[2]: "changed", "gone": "not_waiting"}
    assert set(waiting(machine)) == set(ids[1:])
    again = machine.command(
        "updates", "approve", "--from", "-", "--json", stdin=json.dumps({"updates": [{"skill_id": "a"}]})
    )
    assert again.returncode == 2


@pytest.mark.parametrize(
    ("options", "left"),
    [(["--all"], []), (["--all", "--reason-held", "age"], [0, 1]), (["--reason-held", "review"], [2])],
)
def test_all_or_those_held_for_a_reason(machine: Machine, ids: list[str], options: list[str], left: list[int]) -> None:
    hold(machine, offered(machine, ids[2], description="newer"), "age")
    run_json(machine, "updates", "approve", *options)
    assert sorted(waiting(machine)) == sorted(ids[each] for each in left)


@pytest.mark.parametrize("words", [[], ["a", "--all"], ["--all", "--from", "x"], ["a", "--reason-held", "age"]])
def test_words_that_contradict_each_other(machine: Machine, words: list[str]) -> None:
    for verb in ("approve", "reject"):
        assert machine.command("updates", verb, *words).returncode == 2, words  # before the database is opened


def test_a_review_on_a_terminal(machine: Machine, ids: list[str]) -> None:
    ids = list(waiting(machine))
    shown = on_a_terminal(
        machine,
        ["updates", "review"],
        [("1 of 3", "abort"), ("[q]uit", "a"), ("2 of 3", "reject"), ("3 of 3", "s")],
        COLUMNS="80",
    )
    assert "1 approved, 1 rejected, 1 skipped" in shown
    assert descriptions(machine, ids)[0] == "newer"
    assert list(waiting(machine)) == ids[2:]
    stopped = on_a_terminal(machine, ["updates", "review"], [("[q]uit", "q")], COLUMNS="80")
    assert "1 update not looked at" in stopped
    assert machine.command("updates", "review").returncode == 2


def test_a_review_decides_about_the_version_that_was_shown(
    machine: Machine, ids: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def replaced_meanwhile(*_: object) -> str:
        hold(machine, offered(machine, ids[0], description="newest"))
        return "approve"

    monkeypatch.setattr(review, "choose", replaced_meanwhile)
    monkeypatch.setenv("ATOM_SAAS_DATABASE_URL", machine.database.url)
    with open_desk(GlobalOptions(no_env_file=True)) as desk:
        refused = review.review_updates(desk, ids[:1], note=None)
    assert [(each.skill_id, each.reason) for each in refused] == [(ids[0], "changed")]
    assert not {"newer", "newest"} & {*descriptions(machine, ids)}
    assert "0 approved, 0 rejected, 0 skipped" in capsys.readouterr().out


def test_a_pin_keeps_its_version(machine: Machine, ids: list[str]) -> None:
    digest = waiting(machine)[ids[0]]
    [pinned] = run_json(machine, "pins", "add", ids[0], "--note", "works")["pinned"]
    assert pinned["skill_id"] == ids[0]
    [row] = run_json(machine, "pins", "list")["pins"]
    assert (row["skill_id"], row["digest"], row["note"], row["pinned_by"]) == (ids[0], pinned["digest"], "works", ME)
    refused = run_json(machine, "updates", "approve", f"{ids[0]}@{digest}", code=4)["refused"]
    assert refused == [{"skill_id": ids[0], "reason": "pinned"}]
    assert run_json(machine, "pins", "remove", ids[0]) == {"success": True, "removed": [ids[0]], "total": 1}
    assert machine.command("pins", "remove", ids[0]).returncode == 1
    run_json(machine, "updates", "approve", f"{ids[0]}@{digest}")


def test_a_revocation_takes_out_what_it_hits(machine: Machine, ids: list[str]) -> None:
    document = run_json(machine, "revocations", "add", "--id", ids[0], "--note", "INC-1")
    assert document["quarantined"] == [{"skill_id": ids[0]}]
    assert document["revocation"]["note"] == "INC-1"
    assert machine.sql("SELECT 1 FROM skill_cache WHERE skill_id = ?", ids[0]) == []
    assert run_json(machine, "quarantine", "release", ids[0], code=4)["refused"] == [
        {"skill_id": ids[0], "reason": "revoked"}
    ]
    assert run_json(machine, "updates", "approve", ids[0], code=4)["refused"][0]["reason"] in {"revoked", "not_waiting"}
    [row] = run_json(machine, "revocations", "list")["revocations"]
    assert (row["skill_id"], row["note"], row["source"], row["added_by"]) == (ids[0], "INC-1", "command", ME)
    assert run_json(machine, "revocations", "remove", "--id", ids[0])["removed"] == [row["id"]]
    before = run_json(machine, "quarantine", "show", ids[0])["skill"]["skill"]
    run_json(machine, "quarantine", "release", ids[0])
    assert machine.cached()[ids[0]] == before


def test_quarantine_keeps_evidence_and_gives_back_the_same_bytes(machine: Machine, ids: list[str]) -> None:
    [before] = machine.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", ids[0])
    assert run_json(machine, "quarantine", "add", ids[0], "--note", "odd")["quarantined"] == [{"skill_id": ids[0]}]
    assert machine.sql("SELECT 1 FROM usable_skill WHERE skill_id = ?", ids[0]) == []
    [row] = run_json(machine, "quarantine", "list")["quarantined"]
    assert (row["skill_id"], row["reason"], row["note"], row["quarantined_by"]) == (ids[0], "quarantined", "odd", ME)
    shown = machine.command("quarantine", "show", ids[0]).stdout
    assert "odd" in shown
    assert json.loads(before[0])["name"] in shown
    run_json(machine, "quarantine", "release", ids[0])
    assert machine.sql("SELECT skill_data FROM skill_cache WHERE skill_id = ?", ids[0]) == [before]
    assert machine.command("quarantine", "show", ids[0]).returncode == 1


def test_deciding_over_http(machine: Machine, ids: list[str]) -> None:
    digests = waiting(machine)
    hold(machine, offered(machine, ids[2], description="newest"))
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        done = server.admin("POST", f"updates/{ids[0]}/approve", json={"digest": digests[ids[0]], "note": "fine"})
        assert (done.status_code, done.json()["approved"]) == (200, [{"skill_id": ids[0], "digest": digests[ids[0]]}])
        rejected = server.admin("POST", f"updates/{ids[1]}/reject", json={"digest": digests[ids[1]]})
        assert (rejected.status_code, rejected.json()["success"]) == (200, True)
        changed = server.admin("POST", f"updates/{ids[2]}/approve", json={"digest": digests[ids[2]]})
        assert (changed.status_code, changed.json()["error"]["type"]) == (409, "changed")
        none = server.admin("POST", "updates/@acme/nothing/approve", json={"digest": digests[ids[2]]})
        assert (none.status_code, none.json()["error"]["type"]) == (404, "not_waiting")
    assert machine.sql("SELECT admitted_by FROM usable_skill WHERE skill_id = ?", ids[0]) == [("admin-api",)]
    assert list(waiting(machine)) == [ids[2]]


def test_an_invalid_policy_file_is_not_reported_as_a_server_bug(
    machine: Machine, ids: list[str], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[[rule]]\nadmission = 'open'\n", encoding="utf-8")
    digest = waiting(machine)[ids[0]]
    with served(machine, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, ATOM_SYNC_POLICY_FILE=str(policy)) as server:
        for verb in ("approve", "reject"):
            answer = server.admin("POST", f"updates/{ids[0]}/{verb}", json={"digest": digest})
            error = answer.json()["error"]
            assert (answer.status_code, error["type"]) == (503, "config")
            assert str(policy) in error["message"]
            assert "rule 1" in error["message"]
        policy.write_text("", encoding="utf-8")
        mended = server.admin("POST", f"updates/{ids[0]}/approve", json={"digest": digest})
        assert mended.status_code == 200


def test_a_revocation_admits_nothing_else_that_became_due(machine: Machine, ids: list[str]) -> None:
    aged = {"ATOM_SYNC_ADMISSION": "age", "ATOM_SYNC_MIN_AGE": "1s"}
    digest = hold(machine, offered(machine, ids[1], code="due", version="9"), "age", due_at=FIRST_SEEN)
    machine.command("revocations", "add", "--id", ids[0], **aged)
    assert ids[0] not in machine.cached()
    assert machine.cached()[ids[1]]["code"] != "due"
    assert waiting(machine)[ids[1]] == digest
