"""With a digest key, programs that can write to the database but lack the key can't forge digests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine
from test_tampered import told
from web_support import ADMIN_TOKEN, served

from atom_saas_sync.cli import main
from atom_saas_sync.config import Settings, files, load_settings, sources
from atom_saas_sync.core.canonical import content_digest, exec_digest
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.model import Strategy
from atom_saas_sync.times import format_time

KEY = bytes(range(256))[:32]
SIGNER = Signer(KEY)
NAME = "ATOM_SYNC_DIGEST_KEY_FILE"


@pytest.fixture
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "key"
    path.write_bytes(KEY)
    path.chmod(0o600)
    return path


def load(here: Path, environ: dict[str, str], *, env_file: Path | None = None) -> Settings:
    return load_settings(environ, working_directory=here, env_file=env_file)


# The file


def _short(path: Path, _: Path) -> None:
    path.write_bytes(KEY[:31])


def _for_the_group(path: Path, _: Path) -> None:
    path.chmod(0o640)


def _for_all(path: Path, _: Path) -> None:
    path.chmod(0o604)


def _missing(path: Path, _: Path) -> None:
    path.unlink()


def _pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def _endless(path: Path, _: Path) -> None:
    path.write_bytes(KEY * 4096)


def _to_be_replaced(path: Path, _: Path) -> None:
    path.parent.chmod(0o770)


def _beside_the_database(path: Path, here: Path) -> None:
    (here / "data").mkdir()
    path.rename(here / "data" / "key")
    path.symlink_to(here / "data" / "key")


def _below_the_database(path: Path, here: Path) -> None:
    inner = here / "data" / "keys"
    inner.mkdir(parents=True)
    path.rename(inner / "key")
    path.symlink_to(inner / "key")


def _in_a_circle(path: Path, _: Path) -> None:
    path.unlink()
    path.symlink_to(path)


BAD_FILES = [
    (_short, "has 31 bytes; a key has at least 32"),
    (_for_the_group, "can be read or written by others"),
    (_for_all, "can be read or written by others"),
    (_missing, "No such file"),
    (_pipe, "not a regular file"),
    (_directory, "not a regular file"),
    (_endless, "too large"),
    (_to_be_replaced, "could be replaced"),
    (_beside_the_database, "directory of the database"),
    (_below_the_database, "directory of the database"),
    (_in_a_circle, "ymbolic link"),
]


@pytest.mark.parametrize(("spoil", "why"), BAD_FILES, ids=[spoil.__name__ for spoil, _ in BAD_FILES])
def test_a_key_that_others_may_have_is_refused(
    tmp_path: Path, key_file: Path, spoil: Callable[[Path, Path], None], why: str
) -> None:
    spoil(key_file, tmp_path)
    with pytest.raises(ConfigError, match=why) as caught:
        load(tmp_path, {NAME: str(key_file)})
    assert caught.value.exit_code == 78
    assert caught.value.message.startswith(f"{NAME}: {key_file}")


def test_a_user_without_access_to_the_key_gets_the_command_to_run(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(path: str, _: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    settings = tmp_path / "atom-sync.env"
    settings.write_text(f"{NAME}={key_file}\n")
    monkeypatch.setattr(sources, "SETTINGS", str(settings))
    monkeypatch.setattr(files, "_without_waiting", denied)
    monkeypatch.setattr("sys.argv", ["atom-sync", "--system", "status"])
    assert main._run(as_json=False) == 78  # noqa: SLF001 - without the streams
    told = capsys.readouterr().err
    assert f"{NAME}: {key_file}: Permission denied" in told
    assert "sudo -u atom-sync atom-sync --system status" in told


def test_the_key_is_all_bytes_of_the_file_and_is_shown_nowhere(tmp_path: Path, key_file: Path) -> None:
    settings = load(tmp_path, {NAME: str(key_file)})
    assert settings.digest_key is not None
    assert bytes.fromhex(settings.digest_key.reveal()) == KEY
    assert KEY.hex() not in repr(settings)
    assert load(tmp_path, {}).digest_key is None


def test_a_file_of_the_working_directory_names_no_key(tmp_path: Path, key_file: Path) -> None:
    found = tmp_path / ".env"
    found.write_text(f"{NAME}={key_file}\n")
    found.chmod(0o600)
    with pytest.raises(ConfigError, match="must not be set in") as caught:
        load(tmp_path, {})
    assert caught.value.exit_code == 78
    assert load(tmp_path, {}, env_file=found).digest_key is not None


def test_systemd_may_pass_the_key_on(tmp_path: Path, key_file: Path) -> None:
    key_file.rename(key_file.with_name("atom-sync-digest-key"))
    key_file.with_name("atom-sync-digest-key").chmod(0o440)  # an ACL looks like group permissions
    settings = load(tmp_path, {"CREDENTIALS_DIRECTORY": str(key_file.parent)})
    assert settings.digest_key is not None
    assert {line.origin for line in settings.shown if line.name == NAME} == {"systemd credential"}


# Its effects


class Forger:
    """Another program that can write to the database but lacks the key."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def plant(self, *, signature: str = "signature") -> None:
        """Replace the code of the skill `s` and all its digests."""
        machine = self._machine
        ((text,),) = machine.sql("SELECT skill_data FROM skill_cache WHERE skill_id = 's'")
        fields = {**json.loads(text), "code": "EVIL()"}
        machine.unseen_sql("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 's'", json.dumps(fields))
        machine.sql(
            f"UPDATE skill_base SET content_digest = ?, exec_digest = ?, signature = {signature} WHERE skill_id = 's'",
            content_digest(fields),
            exec_digest(fields),
        )


@pytest.fixture
def signed(machine: Machine) -> Machine:
    machine.follow_clock()
    for name in ("s", "t"):
        machine.sandbox.put_skill({"skill_id": name, "name": name, "version": "1", "code": "good()"}, push=False)
    machine.pull(signer=SIGNER)
    return machine


def checked(machine: Machine, key_file: Path | None) -> tuple[int, dict[str, str]]:
    variables = {} if key_file is None else {NAME: str(key_file)}
    done = machine.command("db", "check", "--json", **variables)
    document = json.loads(done.stdout)
    assert document["success"] == (done.returncode == 0)
    return done.returncode, {each["check"]: each["message"] for each in document["findings"]}


def code(machine: Machine) -> str:
    found: str = machine.sql("SELECT json_extract(skill_data, '$.code') FROM skill_cache WHERE skill_id = 's'")[0][0]
    return found


def test_a_forged_digest_is_found_and_put_right(signed: Machine, key_file: Path) -> None:
    assert checked(signed, key_file) == (0, {})
    Forger(signed).plant()
    assert checked(signed, None) == (0, {})  # undetectable without the key
    status, findings = checked(signed, key_file)
    assert (status, list(findings)) == (74, ["tampered"])
    assert "'s'" in findings["tampered"]
    found = json.loads(signed.command("doctor", "--json", **{NAME: str(key_file)}).stdout)["findings"]
    assert [each["verdict"] for each in found if each["check"] == "integrity"] == ["problem"]

    report = signed.pull(force=True, signer=SIGNER)
    assert report.counts.tampered == 1
    assert code(signed) == "good()"
    assert signed.sql("SELECT count(*) FROM skill_version") == [(0,)]
    assert checked(signed, key_file) == (0, {})


@pytest.mark.parametrize(
    "signature",
    ["NULL", f"x'{'00' * 40}'", "'text'", "(SELECT signature FROM skill_base WHERE skill_id = 't')"],
    ids=["none", "other_key", "text", "of_another_skill"],
)
def test_no_other_signature_is_accepted(signed: Machine, key_file: Path, signature: str) -> None:
    Forger(signed).plant(signature=signature)
    status, findings = checked(signed, key_file)
    if "SELECT" in signature:
        assert (status, list(findings)) == (74, ["tampered"])
    elif signature == "'text'" and signed.engine_name == "sqlite":  # a server stores its bytes
        assert (status, list(findings)) == (74, ["types", "unsigned"])
    else:
        assert (status, findings) == (0, {"unsigned": "1 skill is not signed with the key"})
    signed.pull(force=True, signer=SIGNER)
    assert code(signed) == "good()"
    assert checked(signed, key_file) == (0, {})


def test_skills_stored_before_the_key_are_unsigned_until_a_forced_sync(signed: Machine, key_file: Path) -> None:
    signed.edit("s", description="mine")
    other = Signer(b"x" * 32)
    key_file.write_bytes(b"x" * 32)
    signed.pull(signer=other)
    status, findings = checked(signed, key_file)
    assert status == 0
    assert findings["unsigned"].endswith("skills are not signed with the key")
    found = json.loads(signed.command("doctor", "--json", **{NAME: str(key_file)}).stdout)["findings"]
    assert [each["verdict"] for each in found if each["check"] == "integrity"] == ["warning"]
    signed.pull(force=True, signer=other)
    assert checked(signed, key_file) == (0, {})
    assert signed.cached()["s"]["description"] == "mine"


def test_a_run_without_the_key_keeps_only_signatures_that_hold(signed: Machine, key_file: Path) -> None:
    signed.sandbox.patch_skill("s", {"code": "better()"}, push=False)
    signed.sandbox.patch_skill("t", {"average_rating": 4.5}, push=False)
    signed.pull()
    rows: dict[str, Any] = dict(signed.sql("SELECT skill_id, signature FROM skill_base WHERE skill_id IN ('s', 't')"))
    assert rows["s"] is None
    assert rows["t"] is not None
    assert checked(signed, key_file) == (0, {"unsigned": "1 skill is not signed with the key"})
    assert NAME not in signed.environment()


def test_the_command_signs_and_an_ordinary_sync_notices_a_forgery(machine: Machine, key_file: Path) -> None:
    machine.sandbox.put_skill({"skill_id": "s", "name": "S", "version": "1", "code": "good()"}, push=False)
    assert machine.command("sync", "skills", **{NAME: str(key_file)}).returncode == 0
    assert checked(machine, key_file) == (0, {})
    Forger(machine).plant()
    machine.sql("UPDATE skill_cache SET updated_at = ? WHERE skill_id = 's'", format_time(datetime.now(UTC)))
    done = machine.command("sync", "skills", "--json", **{NAME: str(key_file)})
    assert json.loads(done.stdout)["tampered"] == 1


def test_a_message_continues_only_signed_versions(signed: Machine, key_file: Path) -> None:
    signed.sql("UPDATE skill_base SET signature = NULL WHERE skill_id = 't'")
    for name in ("s", "t", "new"):
        told(signed, "skill_update", {"skill_id": name, "name": name, "code": "better()"}, signer=SIGNER)
    rows = dict(signed.sql("SELECT skill_id, signature IS NULL FROM skill_base WHERE skill_id IN ('s', 't', 'new')"))
    assert rows == {"s": 0, "t": 1, "new": 0}
    assert checked(signed, key_file)[0] == 0


# Other programs must not be able to make us sign


def unsigned(machine: Machine) -> list[str]:
    with machine.store() as store:
        return store.catalogue(history_versions=10, signer=SIGNER).unsigned()


def waiting(machine: Machine, signer: Signer | None = SIGNER) -> None:
    """Create an open conflict of the skill `s` whose remote version was fetched with this key."""
    machine.edit("s", description="mine")
    # No later than the made-up clock, by which messages come after it.
    patch = {"code": "better()", "updated_at": format_time(machine.clock.now())}
    machine.sandbox.patch_skill("s", patch, push=False)
    machine.pull(signer=signer, strategy="manual")


@pytest.mark.parametrize("signature", ["NULL", "signature"])
def test_a_deleted_row_with_a_forged_base_does_not_come_back_signed(signed: Machine, signature: str) -> None:
    for name in ("s", "t"):
        signed.sql("DELETE FROM skill_cache WHERE skill_id = ?", name)
    ((text,),) = signed.sql("SELECT data FROM skill_base WHERE skill_id = 's'")
    fields = {**json.loads(text), "code": "EVIL()"}
    signed.sql(
        f"UPDATE skill_base SET data = ?, content_digest = ?, exec_digest = ?, signature = {signature} "
        "WHERE skill_id = 's'",
        json.dumps(fields),
        content_digest(fields),
        exec_digest(fields),
    )
    report = signed.pull(signer=SIGNER)
    if signature == "NULL":
        assert (report.counts.tampered, unsigned(signed)) == (0, ["s"])
    else:
        assert (report.counts.tampered, "s" in signed.cached()) == (1, False)
    signed.pull(force=True, signer=SIGNER)
    assert (code(signed), unsigned(signed)) == ("good()", [])


@pytest.mark.parametrize("strategy", ["remote_wins", "local_wins", "merge"])
@pytest.mark.parametrize("forged", [False, True])
def test_waiting_versions_are_signed_only_if_the_marketplace_sent_them(
    signed: Machine, strategy: Strategy, forged: bool
) -> None:
    waiting(signed)
    if forged:
        signed.sql("UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', 'EVIL()')")
    signed.pull(signer=SIGNER, strategy=strategy)
    assert unsigned(signed) == []
    ((base,),) = signed.sql("SELECT data FROM skill_base WHERE skill_id = 's'")
    assert "EVIL()" not in (base or "") + json.dumps(signed.cached()["s"])
    assert signed.sql("SELECT count(*) FROM conflict_log WHERE NOT resolved") == [(1 if forged else 0,)]


@pytest.mark.parametrize("strategy", ["remote_wins", "local_wins", "merge"])
@pytest.mark.parametrize("forged", [False, True])
def test_a_manual_decision_is_signed_if_the_text_is_the_marketplace_s(
    signed: Machine, key_file: Path, strategy: str, forged: bool
) -> None:
    waiting(signed)
    if forged:
        signed.sql("UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', 'EVIL()')")
    variables = {NAME: str(key_file)}
    assert signed.command("conflicts", "resolve", "1", "--strategy", strategy, **variables).returncode == 0
    assert unsigned(signed) == (["s"] if forged else [])
    assert signed.command("conflicts", "undo", "1", **variables).returncode == 0
    assert unsigned(signed) == [], "the base of before is what the marketplace sent"


def test_the_admin_api_signs_as_well(signed: Machine, key_file: Path) -> None:
    waiting(signed)
    with served(signed, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN, **{NAME: str(key_file)}) as server:
        assert server.admin("POST", "conflicts/1/resolve", json={"strategy": "remote_wins"}).status_code == 200
    assert (code(signed), unsigned(signed)) == ("better()", [])


def test_a_version_that_came_without_the_key_is_signed_when_it_comes_again(signed: Machine, key_file: Path) -> None:
    waiting(signed, signer=None)
    signed.pull(force=True, signer=SIGNER, strategy="manual")
    resolve = ("conflicts", "resolve", "1", "--strategy", "remote_wins")
    assert signed.command(*resolve, **{NAME: str(key_file)}).returncode == 0
    assert (code(signed), unsigned(signed)) == ("better()", [])


@pytest.mark.parametrize("forged", [False, True])
def test_a_message_that_completes_what_waits_is_signed_only_if_that_was(signed: Machine, forged: bool) -> None:
    waiting(signed)
    if forged:
        signed.sql("UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', 'EVIL()')")
    told(signed, "skill_update", {"skill_id": "s", "name": "S", "version": "2"}, signer=SIGNER)
    assert unsigned(signed) == (["s"] if forged else [])
