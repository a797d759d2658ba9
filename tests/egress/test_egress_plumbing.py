"""Proxy variables, exceptions and certificate bundles, as other tools read them."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
from pki import Authority

from verifier.egress import RefusedError, Settings
from verifier.egress.plumbing import Bypass, proxies, trust

if TYPE_CHECKING:
    from pathlib import Path

P, Q = "http://proxy.example:3128", "http://other.example:3128"


@pytest.mark.parametrize(
    ("environ", "https", "http"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": P}, P, None),
        ({"https_proxy": P}, P, None),
        ({"https_proxy": P, "HTTPS_PROXY": Q}, P, None),
        ({"http_proxy": P}, None, P),
        ({"HTTP_PROXY": P}, None, P),
        ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, None, None),
        ({"ALL_PROXY": P}, P, P),
        ({"all_proxy": P, "https_proxy": Q}, Q, P),
        ({"HTTPS_PROXY": ""}, None, None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, P, None),
        ({"HTTPS_PROXY": "socks5h://proxy.example:1080"}, "socks5h://proxy.example:1080", None),
    ],
)
def test_variables(environ: dict[str, str], https: str | None, http: str | None) -> None:
    found = proxies(Settings(), environ)
    assert found.of("https", "api.example.com", 443) == https
    assert found.of("http", "api.example.com", 80) == http


def test_config_wins_and_empty_means_none() -> None:
    found = proxies(Settings(proxy=P), {"HTTPS_PROXY": Q, "NO_PROXY": "a.example"})
    assert found.of("https", "b.example", 443) == P
    assert found.of("http", "b.example", 80) == P
    assert found.of("https", "a.example", 443) is None
    assert proxies(Settings(proxy=""), {"HTTPS_PROXY": Q}).of("https", "b.example", 443) is None
    assert proxies(Settings(proxy=P, no_proxy=""), {"NO_PROXY": "*"}).of("https", "b.example", 443) == P


@pytest.mark.parametrize(
    ("text", "host", "port", "covered"),
    [
        ("", "a.example", 443, False),
        ("*", "a.example", 443, True),
        ("*", "10.0.0.1", 443, True),
        ("example.com", "example.com", 443, True),
        ("example.com", "a.example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        (".example.com", "a.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("EXAMPLE.com", "example.com", 443, True),
        ("a.example, b.example", "b.example", 443, True),
        ("a.example b.example", "b.example", 443, True),
        ("a.example:8443", "a.example", 8443, True),
        ("a.example:8443", "a.example", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "a.example", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:80", "10.1.2.3", 443, False),
        ("fd00::/8", "fd00::1", 443, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("[fd00::1]", "fd00::1", 443, True),
        ("fd00::1", "fd00::1", 443, True),
        ("1.2.3", "a.1.2.3.example", 443, False),
        (".", "a.example", 443, False),
        ("300.1.1.1/99", "a.example", 443, False),
    ],
)
def test_exceptions(text: str, host: str, port: int, covered: bool) -> None:  # a table
    assert Bypass(text).covers(host, port) is covered


@pytest.mark.parametrize("url", ["ftp://p.example", "http://", "http://p:port", "http://[::1", "http://a b"])
def test_unusable_proxy_is_named_not_quoted(url: str) -> None:
    password = "hunter2" * 3
    scheme, mark, rest = url.partition("://")
    with pytest.raises(RefusedError, match=r"^egress\.proxy") as caught:
        proxies(Settings(proxy=f"{scheme}{mark}me:{password}@{rest}"), {})
    assert password not in str(caught.value)
    with pytest.raises(RefusedError, match=r"^HTTPS_PROXY"):
        proxies(Settings(), {"HTTPS_PROXY": url})


def test_bundles(tmp_path: Path) -> None:
    one, two = Authority(tmp_path, "one"), Authority(tmp_path, "two")
    both = tmp_path / "both.pem"
    both.write_bytes(b"# a comment\n" + one.pem + b"\n" + two.pem)
    assert trust(Settings(), {}) == trust(Settings(), {"SSL_CERT_FILE": ""})
    assert not trust(Settings(), {}).custom
    found = trust(Settings(ca_bundle=str(both)), {"SSL_CERT_FILE": str(one.path)})
    assert found.custom
    assert len(found.pems) == 2
    assert len(trust(Settings(), {"SSL_CERT_FILE": str(one.path)}).pems) == 1
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "abc.0").write_bytes(one.pem)
    (folder / "def.pem").write_bytes(two.pem + one.pem)
    (folder / "sub").mkdir()
    assert len(trust(Settings(), {"SSL_CERT_DIR": str(folder)}).pems) == 2


def test_the_systems_own_bundle_is_not_custom(tmp_path: Path) -> None:
    system = ssl.get_default_verify_paths().openssl_cafile
    assert not trust(Settings(), {"SSL_CERT_FILE": system}).custom
    assert not trust(Settings(), {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}).custom
    link = tmp_path / "link.pem"
    link.symlink_to(system)
    assert not trust(Settings(), {"SSL_CERT_FILE": str(link)}).custom


def test_setting_the_variable_does_not_make_a_bundle_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Authority(tmp_path, "one")
    monkeypatch.setenv("SSL_CERT_FILE", str(one.path))
    assert trust(Settings(), {"SSL_CERT_FILE": str(one.path)}).custom


def test_unreadable_bundles_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"^egress\.ca_bundle: cannot read"):
        trust(Settings(ca_bundle=str(tmp_path / "none.pem")), {})
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with pytest.raises(RefusedError, match=r"^SSL_CERT_FILE: .* holds no PEM certificate"):
        trust(Settings(), {"SSL_CERT_FILE": str(empty)})


def test_user_agent_says_who_we_are() -> None:
    assert Settings().user_agent == "Lapse/0.1 (+secret verification; read-only)"
    assert Settings(contact="sec@example.com").user_agent.endswith("read-only; sec@example.com)")
