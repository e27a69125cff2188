"""The gate with a real catalogue: `python benchmarks/gate.py CATALOGUE`, a file with one JSON object a line.

`review` is switched on, then 200 skills change (50 of them in code), 10 are new, 5 are republished under their version
and 3 are withdrawn. Prints what is served after each step, how long it took, and fails if that is wrong.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from atom_saas_sync.sandbox import Sandbox

CHANGED, IN_CODE, NEW, REPUBLISHED, WITHDRAWN, REJECTED = 200, 50, 10, 5, 3, 20
PACE = 3  # every third skill is touched, so that the changes are on all pages
NEEDS_PERSON = 4


class Machine:
    """A database, and the commands that work on it."""

    def __init__(self, sandbox: Sandbox, directory: str) -> None:
        self.path = f"{directory}/atom.db"
        self.environment = {
            "PATH": os.environ["PATH"],
            "ATOM_SAAS_API_URL": sandbox.url,
            "ATOM_SAAS_WS_ENABLED": "false",
            "ATOM_SAAS_API_TOKEN": sandbox.token,
            "ATOM_SAAS_DATABASE_URL": self.path,
            "ATOM_SYNC_ADMISSION": "review",
        }
        self.seconds = 0.0

    def run(self, *arguments: str, stdin: str = "", code: int = 0, **variables: str) -> dict[str, Any]:
        """Run a command with --json and return its document."""
        before = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-m", "atom_saas_sync", *arguments, "--json"],
            env={**self.environment, **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        self.seconds = time.perf_counter() - before
        assert result.returncode == code, (arguments, result.returncode, result.stderr)
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def served(self) -> dict[str, str]:
        """Return the content digest of each served skill."""
        connection = sqlite3.connect(self.path)
        rows = connection.execute("SELECT skill_id, content_digest FROM usable_skill").fetchall()
        connection.close()
        return dict(rows)

    def say(self, step: str, before: dict[str, str]) -> dict[str, str]:
        """Print a line of the table, and return the served skills."""
        now = self.served()
        changed = sum(1 for skill_id, digest in now.items() if before.get(skill_id, digest) != digest)
        waiting = self.run("status", ATOM_SYNC_ADMISSION="review")["trust"]["waiting"] if step else 0
        new, gone = len(now.keys() - before.keys()), len(before.keys() - now.keys())
        print(f"| {step} | {len(now):,} | {changed} | {new} | {gone} | {waiting} |")
        return now


def change(sandbox: Sandbox) -> dict[str, list[str]]:
    """Change the catalogue; return the ids by what was done to them."""
    touched = iter(sandbox.skill_ids()[::PACE])
    done: dict[str, list[str]] = {"changed": [], "republished": [], "withdrawn": [], "new": []}
    for number in range(CHANGED):
        skill_id = next(touched)
        skill = sandbox.skill(skill_id)
        fields = {"version": f"{skill['version']}.1", "description": f"{skill['description']} More words."}
        if number < IN_CODE:
            fields["code"] = f"{skill['code']}\nRun `curl https://new.example/{number}`."
        sandbox.patch_skill(skill_id, fields, push=False)
        done["changed"].append(skill_id)
    for _ in range(REPUBLISHED):
        skill_id = next(touched)
        sandbox.patch_skill(skill_id, {"code": f"{sandbox.skill(skill_id)['code']}\nother"}, push=False)
        done["republished"].append(skill_id)
    for _ in range(WITHDRAWN):
        done["withdrawn"].append(next(touched))
        sandbox.delete_skill(done["withdrawn"][-1], push=False)
    for number in range(NEW):
        skill = {**sandbox.skill(done["changed"][number]), "skill_id": f"new-{number}", "name": f"New {number}"}
        sandbox.put_skill(skill, push=False)
        done["new"].append(f"new-{number}")
    sandbox.warm()
    return done


def main() -> None:
    with Sandbox(catalogue=Path(sys.argv[1])) as sandbox, tempfile.TemporaryDirectory() as directory:
        sandbox.warm()
        machine = Machine(sandbox, directory)
        machine.run("sync", "skills", ATOM_SYNC_ADMISSION="open")
        start = machine.served()
        print("| step | served | changed | new | gone | waiting |")
        print("|---|--:|--:|--:|--:|--:|")
        done = change(sandbox)
        counts = machine.run("sync", "skills")
        times = {"sync": machine.seconds}
        synced = machine.say("`sync skills` under `review`", start)
        assert synced == {skill_id: start[skill_id] for skill_id in start.keys() - {*done["withdrawn"]}}
        assert counts["updates"]["held"] == CHANGED + NEW + REPUBLISHED, counts["updates"]
        assert "updates_tripped" in counts["reasons"]

        listed = machine.run("updates", "list")
        times["updates list"] = machine.seconds
        reasons = Counter(reason for update in listed["updates"] for reason in update["reasons"])
        assert reasons == {"review": CHANGED + NEW, "republished": REPUBLISHED}, reasons
        rejected = done["changed"][:REJECTED]
        good = [each for each in listed["updates"] if each["skill_id"] not in {*rejected, *done["republished"]}]
        machine.run("updates", "approve", "--from", "-", stdin=json.dumps({"updates": good}))
        times[f"updates approve --from ({len(good)})"] = machine.seconds
        approved = machine.say(f"`updates approve --from` {len(good)} of them", synced)
        assert {each for each, digest in approved.items() if synced.get(each) != digest} == {
            each["skill_id"] for each in good
        }
        machine.run("updates", "reject", *rejected)
        assert machine.say(f"`updates reject` {REJECTED}", approved) == approved

        publishers = Counter(sandbox.skill(skill_id)["metadata"]["author"] for skill_id in sandbox.skill_ids())
        worst = publishers.most_common(1)[0]
        machine.run("revocations", "add", "--publisher", worst[0].upper())
        times[f"revocations add --publisher ({worst[1]} skills)"] = machine.seconds
        revoked = machine.say(f"`revocations add --publisher` ({worst[1]} skills)", approved)
        assert {sandbox.skill(each)["metadata"]["author"] for each in approved.keys() - revoked.keys()} == {worst[0]}
        assert not [each for each in revoked if sandbox.skill(each)["metadata"]["author"] == worst[0]]
        machine.run("sync", "skills")
        assert machine.served() == revoked, "the next sync brings nothing back"

        one = min(revoked)
        machine.run("quarantine", "add", one, "--note", "to be looked at")
        without = machine.say("`quarantine add`", revoked)
        assert without.keys() == revoked.keys() - {one}
        machine.run("quarantine", "release", one)
        assert machine.say("`quarantine release`", without) == revoked
        machine.run("skills", "verify")
        times[f"skills verify ({len(revoked):,})"] = machine.seconds
        print()
        for name, seconds in times.items():
            print(f"- `{name}`: {seconds:.2f} s")


main()
