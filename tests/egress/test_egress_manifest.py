"""A request is on the manifest or it is refused: there is no third answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyreqwest.http import Url

from verifier.egress import RefusedError
from verifier.egress.manifest import Manifest, Target
from verifier.exchange import Call


def call(path: str, host: str = "api.example.com", method: str = "GET", scheme: str = "https") -> Call:
    return Call("kind", method, scheme, host, path, "reads")  # type: ignore[arg-type]  # any words, to be refused


FITS = [
    ("/user", "https://api.example.com/user"),
    ("/user", "https://api.example.com/user?a=b&c=%20d"),
    ("/", "https://api.example.com"),
    ("/", "https://api.example.com/"),
    ("", "https://api.example.com/"),
    ("/", "https://api.example.com?x=1"),
    ("/v1/{account}/keys", "https://api.example.com/v1/abc-1._~%20/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/.../keys"),
    ("/bot{secret}/getMe", "https://api.example.com/bot1:A-b/getMe"),
    ("/{a}/{b}", "https://api.example.com/x/y?z"),
    ("/q?key={secret}&n=1", "https://api.example.com/q?key=a%26b&n=1"),
    ("/q?key={secret}", "https://api.example.com/q?key="),
]
MISFITS = [
    ("/user", "https://api.example.com/users"),
    ("/user", "https://api.example.com/user/"),
    ("/user", "https://api.example.com/USER"),
    ("/user", "https://api.example.com//user"),
    ("/user", "https://api.example.com/x/../user"),
    ("/user", "https://api.example.com/user#x"),
    ("/user", "https://api.example.com/user?a#x"),
    ("/user", "https://api.example.com/user?a b"),
    ("/user", "https://api.example.com/user?a\r\nb"),
    ("/user", "http://api.example.com/user"),
    ("/user", "https://api.example.com:8443/user"),
    ("/user", "https://api.example.com.evil.example/user"),
    ("/user", "https://api.example.com@evil.example/user"),
    ("/user", "https://api.example.com:x@evil.example/user"),
    ("/user", "https://evil.example/user"),
    ("/user", "https://evil.example\\@api.example.com/user"),
    ("/user", "https://API.example.com/user"),
    ("/user", "https:/api.example.com/user"),
    ("/user", "//api.example.com/user"),
    ("/user", ""),
    ("/user", "https://api.example.com/user?" + "a" * 20_000),
    ("/v1/{account}/keys", "https://api.example.com/v1//keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a/b/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/../keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/./keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/%2e%2E/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/.%2e/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a%2Fb/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a%5cb/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a%00/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a\\b/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a?/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/a\tb/keys"),
    ("/v1/{account}/keys", "https://api.example.com/v1/é/keys"),
    ("/q?key={secret}", "https://api.example.com/q?key=a&admin=1"),
    ("/q?key={secret}", "https://api.example.com/q?other=a"),
    ("/q?key={secret}", "https://api.example.com/q"),
]


@pytest.mark.parametrize(("path", "url"), FITS)
def test_fits(path: str, url: str) -> None:
    one = call(path)
    assert Manifest([one], {}).match(one, url) == Target("https", "api.example.com", 443)


@pytest.mark.parametrize(("path", "url"), MISFITS)
def test_does_not_fit(path: str, url: str) -> None:
    one = call(path)
    with pytest.raises(RefusedError):
        Manifest([one], {}).match(one, url)


@given(st.text(st.sampled_from("a1./%2eE5cCfF\\?#@:&;=~ \té{}[]"), max_size=16))
def test_whatever_fills_a_field_the_client_asks_what_the_manifest_says(filling: str) -> None:
    one = call("/v1/{account}/keys")
    url = f"https://api.example.com/v1/{filling}/keys"
    try:
        Manifest([one], {}).match(one, url)
    except RefusedError:
        return
    read = Url(url)
    assert read.host_str == "api.example.com"
    segments = read.path.split("/")
    assert [segments[1], segments[3:]] == ["v1", ["keys"]]


def test_unknown_call_is_refused_even_when_the_url_fits() -> None:
    listed, other = call("/user"), call("/user", method="POST")
    with pytest.raises(RefusedError, match="not on the manifest"):
        Manifest([listed], {}).match(other, "https://api.example.com/user")


@pytest.mark.parametrize(
    ("host", "url", "target"),
    [
        ("{host}", "https://vault.example.com:8200/x", Target("https", "vault.example.com", 8200)),
        ("{domain}", "https://VAULT.example.com/x", Target("https", "vault.example.com", 443)),
        ("{host}", "http://10.0.0.5:8200/x", Target("http", "10.0.0.5", 8200, plain=True)),
        ("{host}", "https://[fd00::1]/x", Target("https", "fd00::1", 443)),
        ("{tenant}.example.com", "https://acme.example.com/x", Target("https", "acme.example.com", 443)),
        ("{t}.example.com", "https://acme.eu-1.example.com/x", Target("https", "acme.eu-1.example.com", 443)),
        ("api.example.com:8443", "https://api.example.com:8443/x", Target("https", "api.example.com", 8443)),
    ],
)
def test_hosts(host: str, url: str, target: Target) -> None:
    one = call("/x", host)
    assert Manifest([one], {}).match(one, url) == target


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("{tenant}.example.com", "https://evil.example/x"),
        ("{tenant}.example.com", "https://evil.example?.example.com/x"),
        ("{tenant}.example.com", "https://evil@acme.example.com/x"),
        ("{tenant}.example.com", "https://acme.example.com:1/x"),
        ("{tenant}.example.com", "https://.example.com/x"),
        ("{host}", "https://u:p@h.example/x"),
        ("{host}", "https:///x"),
        ("{host}", "https://h\\.example/x"),
        ("{host}", "ftp://h.example/x"),
        ("{host}", "https://h.example/y"),
    ],
)
def test_hosts_refused(host: str, url: str) -> None:
    one = call("/x", host)
    with pytest.raises(RefusedError):
        Manifest([one], {}).match(one, url)


def test_http_call_is_marked_plain() -> None:
    one = call("/x", scheme="http")
    assert Manifest([one], {}).match(one, "http://api.example.com/x").plain


def test_override_replaces_host_scheme_and_prefix() -> None:
    one = call("/v1/user")
    manifest = Manifest([one], {"kind": "http://127.0.0.1:9000/sim/"})
    assert manifest.match(one, "http://127.0.0.1:9000/sim/v1/user") == Target("http", "127.0.0.1", 9000, base=True)
    for url in (
        "https://api.example.com/v1/user",
        "http://127.0.0.1:9001/sim/v1/user",
        "http://127.0.0.1:90000/sim/v1/user",
        "https://127.0.0.1:9000/sim/v1/user",
        "http://127.0.0.1:9000/v1/user",
    ):
        with pytest.raises(RefusedError):
            manifest.match(one, url)


@pytest.mark.parametrize(
    "base",
    ["127.0.0.1:9000", "http://u:p@h", "http://h?x=1", "http://h/../x", "HTTP://h", "http://H", "http://h#x", ""],
)
def test_unreadable_override_names_its_key(base: str) -> None:
    with pytest.raises(RefusedError, match=r"^providers\.kind\.base_url"):
        Manifest([call("/x")], {"kind": base})


@pytest.mark.parametrize("path", ["/a/../b", "/x#y"])
def test_templates_that_cannot_be_compared(path: str) -> None:
    with pytest.raises(RefusedError, match="template"):
        Manifest([call(path)], {}).match(call(path), f"https://api.example.com{path}")


def test_logins() -> None:
    login = call("", "{host}", "LOGIN", "postgresql")
    fixed = call("", "db.example.com", "LOGIN", "mysql")
    partly = call("", "{cluster}.db.example.com", "LOGIN", "mongodb")
    http = call("/x")
    manifest = Manifest([login, fixed, partly, http], {})
    assert manifest.admits(login, "DB.example.com", 5432) == ("db.example.com", 5432)
    assert manifest.admits(login, "2001:4860::1", 5432) == ("2001:4860::1", 5432)
    assert manifest.admits(fixed, "db.example.com", 3306) == ("db.example.com", 3306)
    assert manifest.admits(partly, "c1.db.example.com", 27017) == ("c1.db.example.com", 27017)
    for bad, host in ((fixed, "evil.example"), (partly, "evil.example"), (login, "u@h"), (http, "api.example.com")):
        with pytest.raises(RefusedError):
            manifest.admits(bad, host, 1)
    with pytest.raises(RefusedError, match="not on the manifest"):
        manifest.admits(call("", "{host}", "LOGIN", "redis"), "h.example", 1)
    with pytest.raises(RefusedError, match="log-in"):
        manifest.match(login, "postgresql://h.example/")


def test_login_override() -> None:
    login = call("", "{host}", "LOGIN", "postgresql")
    manifest = Manifest([login], {"kind": "postgresql://127.0.0.1:5433"})
    assert manifest.admits(login, "127.0.0.1", 5433) == ("127.0.0.1", 5433)
    with pytest.raises(RefusedError):
        manifest.admits(login, "127.0.0.1", 5432)
