"""Which connections use a proxy: only encrypted ones."""

from __future__ import annotations

import pytest

from atom_saas_sync.errors import ConfigError
from atom_saas_sync.marketplace.proxies import proxy_for

PROXY = "http://user:geheim@proxy.example:3128"


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "WSS_PROXY", "SOCKS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("url", ["https://api.example.com", "wss://api.example.com/ws"])
def test_http_and_websocket_take_the_same_proxy(variable: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, PROXY)
    proxy = proxy_for(url)
    assert proxy is not None and proxy.url == PROXY
    assert str(proxy) == f"the proxy http://proxy.example:3128 ({variable.upper()})"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "ws://127.0.0.1:1/ws",
        "http://api.example.com",
        "ws://api.example.com/ws",
        "https://localhost:1",
        "https://LOCALHOST.:1",
        "https://x.localhost",
        "wss://127.8.8.8/ws",
        "https://[::1]:1",
        "https://[::ffff:127.0.0.1]",
        "https://0.0.0.0:1",
    ],
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_neither_loopback_nor_plain_text_takes_a_proxy(
    url: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, PROXY)
    assert proxy_for(url) is None


def test_a_proxy_for_plain_http_is_not_one_for_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert proxy_for("https://api.example.com") is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "https://api.example.com"),
        ("example.com", "https://api.example.com"),
        (".example.com", "https://api.example.com"),
        ("*.example.com", "wss://api.example.com"),
        ("other, API.example.com", "https://api.EXAMPLE.com"),
        ("api.example.com:443", "https://api.example.com"),
        ("api.example.com:8443", "https://api.example.com:8443"),
        ("10.0.0.0/8", "https://10.1.2.3"),
        ("10.1.2.3", "https://10.1.2.3:9"),
        ("10.1.2.3:9", "https://10.1.2.3:9"),
        ("fd00::/8", "https://[fd00::5]"),
        ("[fd00::5]", "https://[fd00::5]:8443"),
        ("[fd00::5]:8443", "https://[fd00::5]:8443"),
        ("[fd00::]/8", "wss://[fd12::1]/ws"),
        ("[fd00::/8]", "wss://[fd12::1]/ws"),
        ("fd00:0::5", "https://[fd00::5]"),
    ],
)
def test_no_proxy_excludes(no_proxy: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(url) is None


@pytest.mark.parametrize(
    "no_proxy",
    [
        "",
        "example.org",
        "ample.com",
        "api.example.com:8443",
        "fd00::/8",
        "[::1]",
        "10.0.0.0/8",
        "]",
        "[",
        "10.0.0/99",
        ":",
    ],
)
def test_entries_for_other_hosts_and_meaningless_ones_exclude_nothing(
    no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for("https://api.example.com") is not None


def test_a_proxy_needs_no_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert proxy_for("https://api.example.com") is not None


@pytest.mark.parametrize(
    "address",
    [
        "gopher://u:geheim@h:1",
        "http://u:geheim@h:no",
        "http://u:geheim@[::1",
        "http://",
        "http://geheim@h:0",
        "http://ü:1",
    ],
)
def test_an_invalid_address_is_named_only_by_its_variable(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(ConfigError, match="HTTPS_PROXY: invalid proxy address") as failed:
        proxy_for("https://api.example.com")
    assert "geheim" not in failed.value.message
