"""The manifest and the image match the program: probes, settings, permissions, paths. No cluster is needed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
import yaml
from conftest import Machine
from monitoring_support import DEPLOYMENT, ROOT, Json

from atom_saas_sync import __version__
from atom_saas_sync.cli.main import PARTS
from atom_saas_sync.config import load_settings
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.times import format_time

DOCKERFILE = ROOT / "kubernetes" / "Dockerfile"
DATA = PurePosixPath("/data")
SOME_TIME = "2026-02-19T12:00:00Z"


@pytest.fixture(scope="module")
def objects() -> dict[str, Json]:
    documents = yaml.safe_load_all(DEPLOYMENT.read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Json]) -> Json:
    spec: Json = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def containers(pod: Json) -> dict[str, Json]:
    return {container["name"]: container for container in pod["containers"]}


def instructions(name: str) -> list[str]:
    """Return what the Dockerfile says after each `name`, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def test_liveness_and_readiness_ask_what_restarts_nothing_healthy(containers: dict[str, Json]) -> None:
    health = containers["serve-health"]
    assert health["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
    assert health["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    assert {"name": "http", "containerPort": 8000} in health["ports"]
    probes = [
        container[probe]
        for container in containers.values()
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        if probe in container
    ]
    assert "/health/sync" not in str(probes)
    assert "/health/sync must not be a probe" in DEPLOYMENT.read_text(encoding="utf-8")


def test_watch_is_restarted_only_if_it_hangs(machine: Machine, containers: dict[str, Json]) -> None:
    probe = containers["watch"]["livenessProbe"]["exec"]["command"]
    (health,) = instructions("HEALTHCHECK")
    of_the_image = json.loads(health.partition(" CMD ")[2])

    def passes(command: list[str]) -> bool:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        result = subprocess.run(
            command, env=machine.environment(PATH=path), capture_output=True, text=True, check=False
        )
        assert result.stderr == ""
        return result.returncode == 0

    assert passes(probe)  # no database yet
    machine.pull()
    machine.sql("UPDATE websocket_state SET connected = FALSE, started_at = ?1, heartbeat_at = ?1", SOME_TIME)
    machine.sql("UPDATE sync_run SET finished_at = ?", SOME_TIME)
    assert passes(probe)  # stale, and `watch` has not run for long: a restart would not help
    three_minutes_ago = format_time(datetime.now(UTC) - timedelta(minutes=3))
    machine.sql("UPDATE websocket_state SET heartbeat_at = ?", three_minutes_ago)
    assert not passes(probe)
    assert not passes(of_the_image)


def test_one_writer_of_one_volume(objects: dict[str, Json], pod: Json, containers: dict[str, Json]) -> None:
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert containers.keys() == {"watch", "serve-health"}
    assert containers["watch"]["args"][-2:] == ["watch", "--jobs"]
    assert containers["serve-health"]["volumeMounts"] == containers["watch"]["volumeMounts"]
    claims = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert [claim["name"] for claim in claims] == ["data"]
    assert claims[0]["persistentVolumeClaim"]["claimName"] == objects["PersistentVolumeClaim"]["metadata"]["name"]
    assert pod["terminationGracePeriodSeconds"] >= 30


def test_no_container_runs_as_root_or_can_write_more_than_it_needs(pod: Json, containers: dict[str, Json]) -> None:
    assert pod["automountServiceAccountToken"] is False
    rights = pod["securityContext"]
    assert rights["runAsNonRoot"] is True
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    assert rights["runAsUser"] == rights["runAsGroup"] == rights["fsGroup"] == 10001
    for container in containers.values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        paths = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        assert paths == {"/data": False, "/run/secrets/atom-sync": True, "/tmp": False}


def test_the_settings_are_right_and_the_token_comes_from_a_file(
    objects: dict[str, Json],
    pod: Json,
    containers: dict[str, Json],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = dict(objects["ConfigMap"]["data"])
    (secret,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    (mount,) = (each for each in containers["watch"]["volumeMounts"] if each["name"] == "token")
    assert settings["ATOM_SAAS_API_TOKEN_FILE"] == f"{mount['mountPath']}/{secret['items'][0]['path']}"
    assert secret["defaultMode"] == 0o400
    assert "Secret" not in objects
    assert not [name for name in settings if name.endswith("_TOKEN")]
    for container in containers.values():
        assert container["envFrom"] == [{"configMapRef": {"name": objects["ConfigMap"]["metadata"]["name"]}}]
    (admin,) = containers["serve-health"]["env"]
    assert admin["valueFrom"]["secretKeyRef"]["name"] == secret["secretName"]

    token = tmp_path / "token"
    token.write_text("at_saas_0123456789abcdef", encoding="utf-8")
    token.chmod(0o440)  # what becomes of 0400 with fsGroup: root's, and readable for the pod's group
    monkeypatch.setattr(os, "geteuid", lambda: token.stat().st_uid + 1)
    settings["ATOM_SAAS_API_TOKEN_FILE"] = str(token)
    loaded = load_settings(settings, working_directory=tmp_path)
    assert loaded.warnings == ()
    assert loaded.scheduler_enabled
    assert DATA in PurePosixPath(str(loaded.database)).parents


def test_the_copy_of_the_digest_key_is_private_enough(tmp_path: Path, pod: Json) -> None:
    text = (ROOT / "docs/DEPLOYMENT.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(initContainers:.*?)```", text, re.DOTALL)
    added = yaml.safe_load(block)
    (first,) = added["initContainers"]
    secret, keys = added["volumes"]
    assert {each["name"]: each["mountPath"] for each in first["volumeMounts"]} == {
        secret["name"]: "/run/secrets",
        keys["name"]: "/keys",
    }
    assert secret["secret"]["secretName"] == pod["volumes"][1]["secret"]["secretName"]
    for name, mode in (("secrets", 0o777), ("keys", 0o2777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)  # what becomes of them with fsGroup
    original = tmp_path / "secrets/digest-key"
    original.write_bytes(b"k" * 32)
    original.chmod(0o440)
    name = "ATOM_SYNC_DIGEST_KEY_FILE"
    with pytest.raises(ConfigError, match="can be read or written by others"):
        load_settings({name: str(original)}, working_directory=tmp_path)
    shell, option, command = first["command"]
    command = command.replace("/run/secrets", str(tmp_path / "secrets")).replace("/keys", str(tmp_path / "keys"))
    subprocess.run([shell, option, command], check=True, timeout=60)
    assert f"`{name}: /keys/own/digest-key`" in text
    loaded = load_settings({name: str(tmp_path / "keys/own/digest-key")}, working_directory=tmp_path)
    assert loaded.digest_key is not None


def test_the_service_finds_the_pod_and_prometheus_the_metrics(objects: dict[str, Json]) -> None:
    service = objects["Service"]
    template = objects["Deployment"]["spec"]["template"]
    assert service["spec"]["selector"] == template["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert service["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/path": "/metrics/sync",
        "prometheus.io/port": "8000",
    }
    assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]


def test_the_image_is_that_of_the_manifest_and_of_this_version(containers: dict[str, Json]) -> None:
    image = f"atom-sync:{__version__}"
    assert {container["image"] for container in containers.values()} == {image}
    for path in (DOCKERFILE, DEPLOYMENT):
        assert f"docker build -f kubernetes/Dockerfile -t {image} ." in path.read_text(encoding="utf-8")
    assert instructions("ENTRYPOINT") == ['["atom-sync"]']
    for container in containers.values():
        assert [argument for argument in container["args"] if argument in PARTS] == [container["name"]]


def test_the_image_is_built_from_the_checkout_and_does_not_run_as_root(pod: Json) -> None:
    assert len(instructions("FROM")) == 2
    assert instructions("USER") == ["10001:10001"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert instructions("VOLUME") == [str(DATA)]
    assert "ATOM_SAAS_DATABASE_URL=sqlite:////data/atom.db" in shlex.split(instructions("ENV")[0])
    assert instructions("WORKDIR")[-1] == "/"
    assert "PYTHONSAFEPATH=1" in shlex.split(instructions("ENV")[0])
    assert "@sha256:" in next(each for each in instructions("ARG") if each.startswith("PYTHON="))
    installs = re.findall(r"pip install [^&]*", " ".join(instructions("RUN")))
    assert len(installs) == 3
    assert all("--require-hashes" in install or "--no-deps --no-index" in install for install in installs)
    (health,) = instructions("HEALTHCHECK")
    assert "watch_gone" in health
    # The files that it copies exist and are not excluded.
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for copied in instructions("COPY"):
        if not copied.startswith("--from"):
            for source in copied.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source.removeprefix('./')}" in ignored, source


def test_only_monitoring_reaches_the_port(objects: dict[str, Json]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == objects["Deployment"]["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = policy["ingress"]
    assert ingress["from"] and ingress["ports"] == [{"protocol": "TCP", "port": "http"}]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443}
