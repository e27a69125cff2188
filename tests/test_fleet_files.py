"""The files for several hosts on one server fit the program: commands, settings, secrets, the way out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import Machine
from monitoring_support import ROOT, Json

from atom_saas_sync import __version__
from atom_saas_sync.config import load_settings
from atom_saas_sync.core.server_address import ServerAddress

FLEET = ROOT / "kubernetes" / "fleet.yaml"
COMPOSE = ROOT / "kubernetes" / "compose.yaml"
IMAGE = f"atom-sync:{__version__}-postgresql"
SECRETS = "/run/secrets/atom-sync"


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Json]:
    listed = yaml.safe_load(FLEET.read_text(encoding="utf-8"))
    assert (listed["apiVersion"], listed["kind"]) == ("v1", "List")
    return {(each["kind"], each["metadata"]["name"].removeprefix("atom-sync-")): each for each in listed["items"]}


@pytest.fixture(scope="module")
def pods(objects: dict[tuple[str, str], Json]) -> dict[str, Json]:
    """Return what each object starts: the pod's specification by the name of the object."""
    found = {name: each["spec"]["template"]["spec"] for (kind, name), each in objects.items() if kind == "Deployment"}
    for (kind, name), each in objects.items():
        if kind == "CronJob":
            found[name] = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def test_every_pod_runs_a_command_of_ours(machine: Machine, pods: dict[str, Json]) -> None:
    commands = {name: [str(each) for each in pod["containers"][0]["args"]] for name, pod in pods.items()}
    assert {name: words[2:4] for name, words in commands.items()} == {
        "watch": ["watch", "--wait"],
        "health": ["serve-health", "--host"],
        "skills": ["sync", "skills"],
        "ratings": ["sync", "ratings"],
        "purge": ["cache", "purge"],
        "upgrade": ["db", "upgrade"],
    }
    for words in commands.values():
        result = machine.command(*words, "--help")
        assert result.returncode == 0, (words, result.stderr)
    assert all("--scheduled" in commands[name] for name in ("skills", "ratings", "purge"))


def test_several_pods_watch_and_answer_and_jobs_may_overlap(objects: dict[tuple[str, str], Json]) -> None:
    for name in ("watch", "health"):
        spec = objects["Deployment", name]["spec"]
        assert spec["replicas"] == 2
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
        assert "strategy" not in spec  # two at a time are what it is made for
    for name in ("skills", "ratings", "purge"):
        spec = objects["CronJob", name]["spec"]
        assert spec["concurrencyPolicy"] == "Allow"
        assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert objects["CronJob", "upgrade"]["spec"]["suspend"] is True


def test_the_settings_reach_the_server_and_hold_no_secret(
    objects: dict[tuple[str, str], Json], pods: dict[str, Json], tmp_path: Path
) -> None:
    settings = dict(objects["ConfigMap", "atom-sync"]["data"])
    for pod in pods.values():
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert container["envFrom"] == [{"configMapRef": {"name": "atom-sync"}}]
        assert {each["mountPath"] for each in container["volumeMounts"]} == {SECRETS, "/tmp"}
        (secret,) = (each["secret"] for each in pod["volumes"] if "secret" in each)
        assert {each["path"] for each in secret["items"]} == {"api-token", "database-password", "ca.pem"}
        assert secret["defaultMode"] == 0o400
    for name in ("ATOM_SAAS_API_TOKEN_FILE", "ATOM_SAAS_DATABASE_PASSWORD_FILE"):
        assert settings[name].startswith(SECRETS)
        (file := tmp_path / Path(settings[name]).name).write_text("at_saas_0123456789abcdef", encoding="utf-8")
        file.chmod(0o400)
        settings[name] = str(file)
    loaded = load_settings(settings, working_directory=tmp_path)
    assert loaded.warnings == ()
    assert loaded.scheduler_enabled
    database = loaded.database
    assert isinstance(database, ServerAddress)
    assert (database.sslmode, database.password) == ("verify-full", "at_saas_0123456789abcdef")
    assert database.options["sslrootcert"] == f"{SECRETS}/ca.pem"
    assert "Secret" not in {kind for kind, _ in objects}


def test_nothing_runs_as_root_or_may_write_where_it_need_not(pods: dict[str, Json]) -> None:
    for pod in pods.values():
        assert pod["automountServiceAccountToken"] is False
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_prometheus_has_one_target_and_the_way_out_is_to_the_server(objects: dict[tuple[str, str], Json]) -> None:
    service, health = objects["Service", "atom-sync"], objects["Deployment", "health"]
    assert service["spec"]["selector"] == health["spec"]["selector"]["matchLabels"]
    # The annotation would make each pod a target of its own, all with the same figures.
    assert "annotations" not in service["metadata"]
    policy = objects["NetworkPolicy", "atom-sync"]["spec"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 5432}
    assert [each["ports"] for each in policy["ingress"]] == [[{"protocol": "TCP", "port": "http"}]]
    template = health["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= template.items()


def test_the_compose_file_starts_commands_of_ours_on_one_database(machine: Machine, tmp_path: Path) -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert "nothing in\n# them can run it" in text
    document = yaml.safe_load(text)
    services = dict(document["services"])
    database = services.pop("database")
    assert services.keys() == {"one", "two", "health"}
    for name, service in services.items():
        assert (service["hostname"], service["image"]) == (name, IMAGE)
        assert (ROOT / "kubernetes" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        assert (ROOT / service["build"]["args"]["LOCK"]).exists()
        assert set(service["secrets"]) <= document["secrets"].keys()
        assert machine.command(*service["command"], "--help").returncode == 0
    settings = dict(services["one"]["environment"])
    for name in ("ATOM_SAAS_API_TOKEN_FILE", "ATOM_SAAS_DATABASE_PASSWORD_FILE"):
        assert settings[name].removeprefix("/run/secrets/") in document["secrets"]
        (file := tmp_path / Path(settings[name]).name).write_text("at_saas_0123456789abcdef", encoding="utf-8")
        file.chmod(0o400)
        settings[name] = str(file)
    address = load_settings(settings, working_directory=tmp_path).database
    assert isinstance(address, ServerAddress)
    assert (address.host, address.user, address.database) == (
        "database",
        database["environment"]["POSTGRES_USER"],
        database["environment"]["POSTGRES_DB"],
    )


def test_the_image_is_built_with_the_driver() -> None:
    for path in (FLEET, COMPOSE):
        assert IMAGE in path.read_text(encoding="utf-8")
    assert f"--build-arg LOCK=requirements-postgresql.lock -t {IMAGE} ." in FLEET.read_text(encoding="utf-8")
    dockerfile = (ROOT / "kubernetes" / "Dockerfile").read_text(encoding="utf-8")
    assert "\nARG LOCK=requirements.lock\n" in dockerfile
    assert '--require-hashes --requirement "$LOCK"\n' in dockerfile
    plain, driver = (
        set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.lock", "requirements-postgresql.lock")
    )
    assert plain < driver
    assert {each.partition("==")[0] for each in driver - plain} == {"psycopg", "psycopg-binary"}
