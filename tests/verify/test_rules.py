"""The rules: what a reply means, and what it must never be taken for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.exchange import Reply
from verifier.model import Arrival, Doubt, How, Privilege
from verifier.rules import Judge, find, parse_path, privilege
from verifier.spec import Kind, PrivilegeSpec
from verifier.specfile import parse

SPEC = b"""
title = "Acme"
docs  = "https://docs.acme.test/api"

[[kind]]
id       = "acme"
title    = "Acme key"
category = "saas"
docs     = "https://docs.acme.test/keys"
[[kind.shape]]
pattern = 'acme_\\w+'
[kind.probe]
base   = ["https://api.acme.test"]
path   = "/me"
bearer = "{secret}"
reads  = "tells who the key belongs to"
docs   = "https://docs.acme.test/me"
echo   = ["error.message"]
[[kind.rule]]
verdict = "live"
status  = 200
json    = { active = true }
has     = ["user.login"]
[[kind.rule]]
verdict = "restricted"
status  = [401, 403]
words   = { "errors[*].message" = ["missing scope", "ip not allowed"] }
[[kind.rule]]
verdict = "dead"
status  = 401
json    = { "error.code" = "key_revoked" }
how     = "revoked"
arrival = "proven"
[[kind.rule]]
verdict = "dead"
status  = 401
json    = { "error.code" = "unauthorized" }
only    = ["error", "trace"]
[[kind.rule]]
verdict = "dead"
status  = 403
type    = "html"
text    = "Invalid access token."
[[kind.rule]]
verdict = "undecided"
why     = "incomplete"
status  = 401
json    = { "error.code" = "missing_key" }
[[kind.rule]]
verdict = "dead"
status  = 401
type    = "text"
exact   = "Invalid token provided."
[[kind.rule]]
verdict = "dead"
status  = 401
type    = "empty"
header  = { "WWW-Authenticate" = 'error="invalid_token"' }
how     = "expired"
[kind.identity]
principal = ["user.login", "user.name"]
scopes    = ["scopes", "header:X-Scopes"]
account   = "user.org.id"
privilege = { path = ["user.admin"], admin = ["true", "admin:*"], read = ["read:*"] }
"""


def acme() -> Kind:
    return parse(SPEC, "acme", "acme.toml").kind[0]


JUDGE = Judge(acme())


def reply(status: int, body: object = b"", mime: str = "application/json", **headers: str) -> Reply:
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    held = {"content-type": mime} if mime else {}
    return Reply(status, held | {k.replace("_", "-"): v for k, v in headers.items()}, raw, "api.acme.test")


LIVE = {"active": True, "user": {"login": "ada"}}

TABLE = [
    ("live", reply(200, LIVE), "live", None),
    ("live, problem json", reply(200, LIVE, "application/vnd.acme+json; charset=utf-8"), "live", None),
    ("json sent as html", reply(200, LIVE, "text/html"), "undecided", Doubt.AMBIGUOUS),
    ("no content type", reply(200, LIVE, ""), "undecided", Doubt.AMBIGUOUS),
    ("1 is not true", reply(200, {"active": 1, "user": {"login": "a"}}), "undecided", Doubt.AMBIGUOUS),
    ("field empty", reply(200, {"active": True, "user": {"login": ""}}), "undecided", Doubt.AMBIGUOUS),
    ("bare 200", reply(200, {}), "undecided", Doubt.AMBIGUOUS),
    ("captive portal", reply(200, "<html>Welcome", "text/html"), "undecided", Doubt.BLOCKED),
    ("scope", reply(403, {"errors": [{"message": "x"}, {"message": "Missing Scope: a"}]}), "restricted", None),
    ("revoked", reply(401, {"error": {"code": "key_revoked"}}), "dead", How.REVOKED),
    ("generic words and key set", reply(401, {"error": {"code": "unauthorized"}, "trace": 1}), "dead", How.REJECTED),
    ("generic words alone", reply(401, {"error": {"code": "unauthorized"}}), "undecided", Doubt.AMBIGUOUS),
    ("html the vendor does send", reply(403, "<p>Invalid access token.", "text/html"), "dead", How.REJECTED),
    ("same words as json", reply(403, '"Invalid access token."'), "undecided", Doubt.AMBIGUOUS),
    ("no key arrived", reply(401, {"error": {"code": "missing_key"}}), "undecided", Doubt.INCOMPLETE),
    ("exact text", reply(401, "Invalid token provided.\n", "text/plain"), "dead", How.REJECTED),
    ("more than the exact text", reply(401, "Invalid token provided. Or so", "text/plain"), "undecided", Doubt.BLOCKED),
    ("header", reply(401, b"", "", www_authenticate='Bearer error="invalid_token"'), "dead", How.EXPIRED),
    ("bare 401", reply(401, b"", ""), "undecided", Doubt.AMBIGUOUS),
    ("401 html", reply(401, "<html>", "text/html"), "undecided", Doubt.BLOCKED),
    ("429", reply(429, {"error": 1}), "undecided", Doubt.THROTTLED),
    ("429 html", reply(429, "<html>", "text/html"), "undecided", Doubt.THROTTLED),
    ("503", reply(503, "<html>", "text/html"), "undecided", Doubt.UNREACHABLE),
    ("408", reply(408), "undecided", Doubt.UNREACHABLE),
    ("302", reply(302, b"", "", location="/login"), "undecided", Doubt.BLOCKED),
    ("407", reply(407, "<html>", "text/html"), "undecided", Doubt.BLOCKED),
    ("203", reply(203, LIVE), "undecided", Doubt.BLOCKED),
    ("binary", reply(200, b"\x00\x01", "application/octet-stream"), "undecided", Doubt.BLOCKED),
    ("broken json", reply(200, '{"active": tr'), "undecided", Doubt.AMBIGUOUS),
    ("deep json", reply(200, b"[" * 5000 + b"]" * 5000), "undecided", Doubt.AMBIGUOUS),
]


@pytest.mark.parametrize(("name", "said", "verdict", "detail"), TABLE, ids=[t[0] for t in TABLE])
def test_table(name: str, said: Reply, verdict: str, detail: Doubt | How | None) -> None:
    ruling = JUDGE(said)
    assert (ruling.verdict, ruling.how or ruling.why) == (verdict, detail), ruling.note


def test_a_truncated_body_is_no_json() -> None:
    cut = Reply(200, {"content-type": "application/json"}, msgspec.json.encode(LIVE), "h", truncated=True)
    assert JUDGE(cut).verdict == "undecided"


def test_arrival_is_proven_by_live_and_by_words_that_differ() -> None:
    assert JUDGE(reply(200, LIVE)).arrival is Arrival.PROVEN
    assert JUDGE(reply(401, {"error": {"code": "key_revoked"}})).arrival is Arrival.PROVEN
    assert JUDGE(reply(403, "<p>Invalid access token.", "text/html")).arrival is Arrival.ASSUMED


@pytest.mark.parametrize(
    ("echo", "verdict"),
    [
        ("key acme_ab****wxyz was revoked", "dead"),
        ("key acme_ab****zzzz was revoked", "undecided"),
        ("key other****wxyz was revoked", "undecided"),
        ("key ****wxyz was revoked", "dead"),
        ("key acme_ab… was revoked", "dead"),
        ("this key was revoked", "dead"),
    ],
)
def test_a_masked_echo_tells_which_key_was_judged(echo: str, verdict: str) -> None:
    said = reply(401, {"error": {"code": "key_revoked", "message": echo}})
    assert JUDGE(said, "acme_abcdefwxyz").verdict == verdict


def test_identity_is_read_from_body_and_headers() -> None:
    body = {"active": True, "user": {"login": "ada", "org": {"id": 7}, "admin": True}, "scopes": ["read:x", "write:x"]}
    found = JUDGE(reply(200, body, x_scopes="a, b")).identity
    assert found is not None
    assert found.principal == "ada"
    assert found.account == "7"
    assert found.scopes == ("read:x", "write:x", "a", "b")
    assert found.privilege is Privilege.ADMIN


def test_the_strongest_scope_counts() -> None:
    spec = PrivilegeSpec(admin=("admin:*",), write=("repo",), read=("read:*",))
    assert privilege(spec, ["read:org", "repo"]) is Privilege.WRITE
    assert privilege(spec, ["nothing"]) is Privilege.UNKNOWN


@pytest.mark.parametrize(
    ("path", "steps"),
    [("$", ()), ("a.b", ("a", "b")), ("a[0].b", ("a", 0, "b")), ("[1]", (1,)), ("a[*].b", ("a", "*", "b"))],
)
def test_paths(path: str, steps: tuple[str | int, ...]) -> None:
    assert parse_path(path) == steps


@pytest.mark.parametrize("path", ["a..b", "a[", "a[x]", "]"])
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        parse_path(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from([200, 401, 403, 404, 400]), st.sampled_from(["application/json", "text/html", ""]))
def test_json_of_another_shape_is_never_a_verdict(value: object, status: int, mime: str) -> None:
    assert JUDGE(reply(status, msgspec.json.encode(value), mime)).verdict == "undecided"


@given(st.binary(max_size=200), st.integers(100, 599), st.sampled_from(["application/json", "text/plain", "x/y", ""]))
def test_garbage_is_never_a_verdict_and_never_raises(body: bytes, status: int, mime: str) -> None:
    assert JUDGE(reply(status, body, mime)).verdict == "undecided"


@given(json_values)
def test_find_at_the_root_gives_the_value(value: object) -> None:
    assert list(find(value, ())) == [value]
