"""Addresses that nobody can connect to, from the environment and from the marketplace: an error each, never a crash."""

from __future__ import annotations

import json

import pytest
from conftest import Machine

# What httpx decodes only when it is asked for the host, with an error of another kind than its own.
MALFORMED = "http://xn--a.example:1/"


def test_a_host_name_that_means_nothing_is_a_configuration_error(machine: Machine) -> None:
    ended = machine.command("sync", "skills", ATOM_SAAS_API_URL="https://xn--a.example")
    assert ended.returncode == 78
    assert ended.stderr.startswith("atom-sync: https://xn--a.example has no valid host name\n  → check ATOM_SAAS_API")


def test_a_socks_proxy_says_what_it_needs(machine: Machine) -> None:
    ended = machine.command("sync", "skills", ALL_PROXY="socks5://user:geheim@localhost:1")
    assert ended.returncode == 78
    assert ended.stderr.startswith("atom-sync: a SOCKS proxy (ALL_PROXY")
    assert "geheim" not in ended.stderr


def test_a_proxy_of_no_known_kind_is_a_configuration_error(machine: Machine) -> None:
    ended = machine.command("sync", "skills", HTTP_PROXY="gopher://user:geheim@localhost:1")
    assert ended.returncode == 78
    assert "has no valid address" in ended.stderr
    assert "geheim" not in ended.stderr


def test_a_redirect_to_a_malformed_name_is_a_bad_response(machine: Machine) -> None:
    machine.pull()
    before = machine.cached()
    machine.sandbox.fault("redirect", endpoint="list", location=MALFORMED)
    report = machine.pull(force=True)
    assert (report.exit_code, report.reasons) == (65, ("bad_response",))
    assert report.error is not None and "redirected to no valid address" in report.error.message
    assert machine.cached() == before
    assert machine.sql("SELECT count(*) FROM sync_run WHERE status = 'running'") == [(0,)]


@pytest.mark.parametrize("location", [MALFORMED, "http://[::1", "//xn--a/"])
def test_doctor_names_a_redirect_to_a_malformed_name(machine: Machine, location: str) -> None:
    machine.sandbox.fault("redirect", location=location)
    ended = machine.command("doctor", "--json")
    assert ended.returncode == 1
    found = {each["check"]: each for each in json.loads(ended.stdout)["findings"]}
    assert found["http"]["verdict"] == "problem"
    assert "Traceback" not in ended.stderr
