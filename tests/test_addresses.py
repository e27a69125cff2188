"""Unusable addresses, from the environment and from the marketplace: an error each, never a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Machine
from proxy_support import RefusingProxy

# What httpx decodes only when it is asked for the host, with an error of another kind than its own.
MALFORMED = "http://xn--a.example:1/"


def test_a_host_name_that_means_nothing_is_a_configuration_error(machine: Machine) -> None:
    ended = machine.command("sync", "skills", ATOM_SAAS_API_URL="https://xn--a.example")
    assert ended.returncode == 78
    assert ended.stderr.partition("\n")[2].startswith(
        "atom-sync: https://xn--a.example has no valid host name\n  → check ATOM_SAAS_API"
    )


def test_a_socks_proxy_says_what_it_needs(machine: Machine) -> None:
    variables = {"ATOM_SAAS_API_URL": "https://marketplace.invalid", "ALL_PROXY": "socks5://user:geheim@localhost:1"}
    ended = machine.command("sync", "skills", **variables)
    assert ended.returncode == 78
    assert ended.stderr.partition("\n")[2].startswith("atom-sync: ALL_PROXY: a SOCKS proxy needs the package socksio")
    assert "geheim" not in ended.stderr


def test_a_proxy_of_no_known_kind_is_a_configuration_error(machine: Machine) -> None:
    variables = {"ATOM_SAAS_API_URL": "https://marketplace.invalid", "HTTPS_PROXY": "gopher://user:geheim@localhost:1"}
    ended = machine.command("sync", "skills", **variables)
    assert ended.returncode == 78
    assert ended.stderr.partition("\n")[2].startswith("atom-sync: HTTPS_PROXY: invalid proxy address")
    assert "geheim" not in ended.stderr


def test_a_redirect_to_a_malformed_name_is_a_bad_response(machine: Machine) -> None:
    machine.fill()
    before = machine.cached()
    machine.sandbox.fault("redirect", endpoint="list", location=MALFORMED)
    report = machine.pull(force=True)
    assert (report.exit_code, report.reasons) == (65, ("bad_response",))
    assert report.error is not None and "redirected to an invalid address" in report.error.message
    assert machine.cached() == before
    assert "running" not in {run.status for run in machine.status().runs}


@pytest.mark.parametrize("location", [MALFORMED, "http://[::1", "//xn--a/"])
def test_doctor_names_a_redirect_to_a_malformed_name(machine: Machine, location: str) -> None:
    machine.sandbox.fault("redirect", location=location)
    ended = machine.command("doctor", "--json")
    assert ended.returncode == 1
    found = {each["check"]: each for each in json.loads(ended.stdout)["findings"]}
    assert found["http"]["verdict"] == "problem"
    assert "Traceback" not in ended.stderr


# Variables of OpenSSL and of proxies


@pytest.fixture
def broken_files(tmp_path: Path) -> dict[str, Path]:
    text, nothing = tmp_path / "text.pem", tmp_path / "nothing"
    text.write_text("not a certificate")
    return {"missing": nothing / "x", "a text": text, "a directory": tmp_path}


@pytest.mark.parametrize(
    ("variable", "kind", "reason"),
    [
        ("SSL_CERT_FILE", "missing", "No such file or directory"),
        ("SSL_CERT_FILE", "a text", "it contains no certificates in PEM format"),
        ("SSL_CERT_FILE", "a directory", "it is not a regular file"),
        ("SSL_CERT_DIR", "missing", "No such file or directory"),
        ("SSL_CERT_DIR", "a text", "Not a directory"),
        ("SSLKEYLOGFILE", "missing", "No such file or directory"),
        ("SSLKEYLOGFILE", "a directory", "Is a directory"),
    ],
)
def test_a_file_that_openssl_cannot_read_is_a_configuration_error(
    machine: Machine, broken_files: dict[str, Path], variable: str, kind: str, reason: str
) -> None:
    path = str(broken_files[kind])
    variables = {"ATOM_SAAS_API_URL": "https://localhost:9", "ATOM_SAAS_WS_URL": "wss://localhost:9", variable: path}
    words = f"{variable}: {path}: {reason}"
    synced = machine.command("sync", "skills", "--json", **variables)
    assert (synced.returncode, json.loads(synced.stdout)["error"]["message"]) == (78, words)
    checked = machine.command("config", "check", "--json", **variables)
    assert (checked.returncode, json.loads(checked.stdout)["problems"]) == (78, [words])
    if kind == "missing":
        examined = machine.command("doctor", "--json", **variables)
        assert examined.returncode == 1 and words in examined.stdout
        watched = machine.command("watch", **variables)
        assert watched.returncode == 78 and words in watched.stderr


def test_one_readable_directory_of_certificates_is_enough(machine: Machine, tmp_path: Path) -> None:
    assert machine.command("config", "check", SSL_CERT_DIR=f"{tmp_path}/nothing:{tmp_path}").returncode == 0


def test_config_check_looks_at_the_proxy(machine: Machine) -> None:
    variables = {"ATOM_SAAS_API_URL": "https://marketplace.invalid", "HTTPS_PROXY": "gopher://user:geheim@localhost:1"}
    ended = machine.command("config", "check", "--strict", **variables)
    assert ended.returncode == 78
    assert "HTTPS_PROXY: invalid proxy address" in ended.stderr and "geheim" not in ended.stderr


def test_no_proxy_that_means_another_host_is_harmless(machine: Machine) -> None:
    for no_proxy in ("fd00::/8", "[::1]", "[::1]:80,10.0.0.0/8"):
        assert machine.command("sync", "skills", NO_PROXY=no_proxy).returncode == 0


def test_plain_http_to_loopback_takes_no_proxy(machine: Machine) -> None:
    with RefusingProxy() as proxy:
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy", "HTTPS_PROXY"):
            assert machine.command("sync", "skills", **{name: proxy.url}).returncode == 0
            assert machine.command("doctor", "--json", **{name: proxy.url}).returncode in {0, 1}
        assert proxy.heads == []


def test_a_proxy_that_fails_is_named_without_its_password(machine: Machine) -> None:
    with RefusingProxy() as proxy:
        address = proxy.url.replace("//", "//user:geheim@")
        for variable, value, reason in (
            ("HTTPS_PROXY", address, "407 Proxy Authentication Required"),
            ("ALL_PROXY", "http://user:geheim@127.0.0.1:9", "Connection refused"),
        ):
            variables = {"ATOM_SAAS_API_URL": "https://marketplace.invalid", variable: value}
            ended = machine.hurried("sync", "skills", "--json", **variables)
            error = json.loads(ended.stdout)["error"]
            named = f"the proxy {value.replace('user:geheim@', '')} ({variable}) failed: {reason}"
            assert ended.returncode in {69, 75}
            assert f"the connection to marketplace.invalid through {named}" in error["message"]
            assert variable in error["hint"] and "NO_PROXY" in error["hint"]
            assert "geheim" not in ended.stdout + ended.stderr
        assert all(head.startswith(b"CONNECT marketplace.invalid:443 ") for head in proxy.heads)
