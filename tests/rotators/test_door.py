"""The rotators' door: what it lets through, and what its errors never hold."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from egress.pki import Authority
from sim_http import Asked, Reply, Sim

from rotators.door import Answer, Door, Route, admin_token, refusal
from rotators.interface import ProviderError, Trouble
from rotators.masks import fits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = Route("DELETE", "/things/{id}")
LIST = Route("GET", "/things")


def _echo(asked: Asked) -> Reply:
    return 200, {"method": asked.method, "path": asked.path, "query": asked.query}


@pytest.fixture
def sim() -> Iterator[Sim]:
    with Sim(_echo) as sim:
        yield sim


def test_only_its_own_routes_and_whole_segments(sim: Sim) -> None:
    door = Door("https://api.example", (ONE, LIST), {**sim.settings, "base_url": sim.url + "/v1/"})
    assert door.call(ONE, fill={"id": "a b/c?d"}).json() == {
        "method": "DELETE",
        "path": "/v1/things/a b/c?d",
        "query": {},
    }
    assert door.call(LIST, query={"q": "x&y"}).json()["query"] == {"q": "x&y"}
    with pytest.raises(ProviderError, match="not a call that may be made"):
        door.call(Route("DELETE", "/things"))
    for value in ("", "..", ".", "a\nb", "x" * 600):
        with pytest.raises(ProviderError, match="can name"):
            door.call(ONE, fill={"id": value})
    assert len(sim.asked) == 2


@pytest.mark.parametrize("body", [b"<html>", b'{"said": "se\xf1or"}'])
def test_what_is_no_json_is_not_the_providers(sim: Sim, body: bytes) -> None:
    sim.fail.append((200, body))
    door = Door("https://api.example", (LIST,), sim.settings)
    with pytest.raises(ProviderError, match="a proxy may have given it") as caught:
        door.call(LIST).json()
    assert caught.value.trouble is Trouble.LATER


@pytest.mark.parametrize(
    ("base", "allow", "said"),
    [
        ("http://127.0.0.1:1", "", "loopback"),
        ("https://127.0.0.1:1", "", "loopback"),
        ("https://169.254.169.254", "", "link-local"),
        ("https://2130706433", "", "loopback"),
        ("https://[::ffff:127.0.0.1]", "127.0.0.0/8", "IPv4-mapped"),
        ("http://8.8.8.8", "", "without TLS"),
        ("ftp://api.example", "", "not of the form"),
        ("https://api.example/?q", "", "not of the form"),
        ("https://user@api.example", "", "names a user"),
        ("https://api.example:99999", "", "port"),
        ("https://api.example", "10.0.0.0/33", "not a list of ranges"),
    ],
)
def test_where_it_does_not_go(base: str, allow: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProviderError, match=said) as e:
        Door("https://api.example", (LIST,), {"base_url": base, "allow_private": allow}).call(LIST)
    assert e.value.trouble is Trouble.REFUSED


def test_a_local_name_behind_a_proxy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    with pytest.raises(ProviderError, match="local name"):
        Door("https://metadata", (LIST,), {}).call(LIST)
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy.example")
    with pytest.raises(ProviderError, match="HTTPS_PROXY"):
        Door("https://api.example", (LIST,), {}).call(LIST)


def test_redirects_floods_and_silence(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door("https://api.example", (ONE, LIST), sim.settings)
    sim.fail = [(307, {}, {"location": f"{sim.url}/elsewhere"})]
    with pytest.raises(ProviderError, match="redirect"):
        door.call(LIST)
    monkeypatch.setattr("rotators.door.BODY_CAP", 10)
    with pytest.raises(ProviderError, match="more than any"):
        door.call(LIST)
    with pytest.raises(ProviderError) as e:
        Door("", (ONE,), {"base_url": "http://127.0.0.1:1", "allow_private": "127.0.0.0/8"}).call(
            ONE, fill={"id": "the-secret"}, headers={"authorization": "Bearer the-secret"}
        )
    assert e.value.trouble is Trouble.LATER
    assert "the-secret" not in str(e.value)
    with pytest.raises(ProviderError) as e:
        door.call(LIST, headers={"x-key": "the-secret\r\nx: y"})
    assert "the-secret" not in str(e.value)
    assert e.value.__cause__ is None


def test_a_name_without_address_is_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", none)
    with pytest.raises(ProviderError, match="no address") as e:
        Door("https://nowhere.example", (LIST,), {}).call(LIST)
    assert e.value.trouble is Trouble.LATER


def test_what_each_status_means() -> None:
    for status, trouble in (
        (401, Trouble.DENIED),
        (403, Trouble.DENIED),
        (404, Trouble.GONE),
        (409, Trouble.CONFLICT),
        (412, Trouble.CONFLICT),
        (429, Trouble.LATER),
        (502, Trouble.LATER),
        (418, Trouble.REFUSED),
    ):
        assert refusal(Answer(status, {}, b""), "do it").trouble is trouble
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    for text, low, high in (
        ("5", 5, 5),
        ("999999", 3600, 3600),
        (soon, 20, 31),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
    ):
        wait = Answer(429, {"retry-after": text}, b"").retry_after()
        assert wait is not None
        assert low <= wait.total_seconds() <= high
    assert Answer(429, {"retry-after": "soon"}, b"").retry_after() is None
    assert Answer(429, {}, b"").retry_after() is None


def test_the_admin_credential_is_never_the_leaked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "")
    monkeypatch.setenv("TWO", "leaked")
    assert admin_token(("ONE", "TWO")) == "leaked"
    with pytest.raises(ProviderError, match="never rotates itself"):
        admin_token(("ONE", "TWO"), "leaked")
    with pytest.raises(ProviderError, match="set ONE or THREE"):
        admin_token(("ONE", "THREE"))


def test_masks() -> None:
    common = ("sk-",)
    assert fits("sk-abc...wxyz", "sk-abcdefwxyz", common)
    assert fits("sk-abc***wxyz", "sk-abcdefwxyz", common)
    assert fits("sk-abc…wxyz", "sk-abcdefwxyz", common)
    assert not fits("sk-abc...wxyz", "sk-abdcefwxyz", common)
    assert not fits("sk-...yz", "sk-abcdefwxyz", common)  # too little to tell anybody by
    assert not fits("sk-abcd...cdwxyz", "sk-abcdwxyz", common)  # the halves overlap
    assert not fits("", "sk-abc", common)
    assert fits("sk-abcdef", "sk-abcdef", common)


def _pair(folder: Path, subject: str) -> bytes:
    """Return a self-signed certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    built = built.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    whole = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private
    (folder / subject).write_bytes(whole)
    return whole


def test_tls_is_checked_and_our_own_certificate_shown(tmp_path: Path) -> None:
    own = _pair(tmp_path, "client")
    authority = Authority(tmp_path)
    context = authority.server("127.0.0.1")
    context.load_verify_locations(cafile=tmp_path / "client")
    context.verify_mode = ssl.CERT_REQUIRED
    with Sim(_echo, tls=context) as sim:
        for roots, identity, works in (
            ((authority.pem,), own, True),
            ((), own, False),
            ((authority.pem,), b"", False),
        ):
            door = Door("https://api.example", (LIST,), sim.settings, roots=roots, identity=identity)
            if works:
                assert door.call(LIST).json()["path"] == "/things"
            else:
                with pytest.raises(ProviderError) as e:
                    door.call(LIST)
                assert e.value.trouble is Trouble.LATER
        with pytest.raises(ProviderError, match="cannot be read") as e:
            Door("https://api.example", (LIST,), sim.settings, identity=b"nonsense").call(LIST)
        assert e.value.trouble is Trouble.DENIED
        named = {**sim.settings, "ca_bundle": str(authority.path)}
        assert Door("https://api.example", (LIST,), named, identity=own).call(LIST).good
