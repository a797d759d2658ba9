"""What is settled without a call, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.model import GENERIC, Credential, CredentialID, Dead, Doubt, How, KindID, Undecided
from verifier.offline import check, checksums, examples, jwt, offline
from verifier.offline.aws import account_id, canaries, is_canary
from verifier.secret import Secret
from verifier.shapes import rows
from verifier.spec import Kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def ask(kind: str, *, canary: str = "", bound: bool = False, **parts: str):  # noqa: ANN201  # the offline check's own answer
    held = {n: Secret(v) for n, v in parts.items()}
    return offline(kind, held, NOW, frozenset({canary} - {""}), jwt_bound=bound)


def settled(kind: str, **parts: str) -> tuple[Doubt, str]:
    verdict = ask(kind, **parts)
    assert isinstance(verdict, Undecided)
    assert verdict.evidence is not None
    assert (verdict.evidence.carrier, verdict.evidence.status, verdict.evidence.host) == ("offline", None, "")
    return verdict.why, verdict.note


# ── checksums ──────────────────────────────────────────────────────────────────────────────────────────

SUMMED = [
    ("github_pat", lambda s: makers.github("ghp_", s)),
    ("github_oauth", lambda s: makers.github("gho_", s)),
    ("github_app_user", lambda s: makers.github("ghu_", s)),
    ("github_installation", lambda s: makers.github("ghs_", s)),
    ("github_refresh", lambda s: makers.github("ghr_", s)),
    ("npm", makers.npm),
    ("vercel", lambda s: makers.vercel("vcp_", s)),
    ("gitlab_pat", makers.gitlab_routable),
    ("grafana_sa", makers.grafana),
    ("confluent", makers.confluent),
]


@pytest.mark.parametrize(("kind", "maker"), SUMMED, ids=[k for k, _ in SUMMED])
@given(seed=st.integers(), where=st.integers(0, 500), to=st.sampled_from("aZ7"))
def test_a_right_checksum_settles_nothing_and_one_wrong_character_does(
    kind: str, maker: object, seed: int, where: int, to: str
) -> None:
    token = maker(seed)  # type: ignore[operator]  # makers with a seed only
    assert ask(kind, secret=token) is None
    at = 6 + where % (len(token) - 6)
    changed = token[:at] + to + token[at + 1 :]
    verdict = ask(kind, secret=changed)
    if changed == token or checksums.fits(checksums.BY_KIND[kind], changed) is None:
        assert verdict is None
    else:
        assert isinstance(verdict, Undecided)
        assert verdict.why is Doubt.INCOMPLETE


@pytest.mark.parametrize(
    ("kind", "token"),
    [
        ("github_fg_pat", makers.github_fine_grained()),
        ("github_installation", "ghs_" + "1_" + makers.jwt()),
        ("gitlab_pat", makers.gitlab()),
        ("npm", "-".join(makers.hexes(n) for n in (8, 4, 4, 4, 12))),
        ("confluent", makers.draw(makers.ALNUM, 64)),
        ("github_pat", "ghp_" + "short"),
    ],
)
def test_a_token_without_the_checksum_is_never_refused_for_it(kind: str, token: str) -> None:
    assert ask(kind, secret=token) is None


def test_a_published_vector_of_base_62() -> None:
    assert checksums.in_base(0x3610A686, checksums.BASE62, 6) == "0zNvy2"
    assert checksums.fits("no such checksum", "x") is None


# ── AWS ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 10**12 - 1), st.integers())
def test_the_account_is_read_from_the_key_id(account: int, seed: int) -> None:
    number = f"{account:012d}"
    assert account_id(makers.aws_id(number, seed=seed)) == number


OLD_ID = "AKIA" + "J" + "Q" * 15


@pytest.mark.parametrize("key", ["AKIA" + "A" * 16, "AKIA", "x", "", "AKIA" + "7" * 16, "AKIA" + "Q1" * 8, OLD_ID])
def test_an_id_that_holds_no_account_says_none(key: str) -> None:
    assert account_id(key) is None


def test_a_canary_is_never_called_whatever_else_it_is() -> None:
    for account in canaries():
        why, note = settled("aws_akia", id=makers.aws_id(account), secret=makers.aws_secret())
        assert why is Doubt.REFUSED
        assert note.startswith("canary")
    assert len(canaries()) == 29
    assert not is_canary("123456789012")
    mine = makers.aws_id("123456789012")
    assert ask("aws_akia", id=mine, secret=makers.aws_secret()) is None
    verdict = ask("aws_akia", canary="123456789012", id=mine)
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.REFUSED


def test_a_canary_that_nobody_classified_is_not_called_either() -> None:
    assert settled(GENERIC, secret=makers.aws_id(min(canaries())))[0] is Doubt.REFUSED


# ── examples and placeholders ──────────────────────────────────────────────────────────────────────────


def test_published_examples_are_known_by_hash() -> None:
    key = "AKIA" + "IOSFODNN7" + "EXAMPLE"
    assert settled("aws_akia", id=key, secret=makers.aws_secret()) == (
        Doubt.REFUSED,
        "published example key (AWS documentation)",
    )
    assert settled("contentful", secret="b4c0n" + "73n7fu1")[0] is Doubt.REFUSED
    assert all(len(row[0]) == 64 and row[1] for row in rows("examples.tsv"))
    assert examples.published("\ud800") is None


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("${GITHUB_TOKEN}", "secret"), ("{{ .Values.token }}", "secret"), ("<your-token>", "secret"),
        ("$API_KEY", "secret"), ("%API_KEY%", "secret"), ("%(token)s", "secret"), ("[YOUR TOKEN]", "secret"),
        ("x" * 40, "secret"), ("sk-" + "x" * 20, "secret"), ("ghp_" + "*" * 36, "secret"), ("0" * 32, "secret"),
        ("changeme", "secret"), ("your-api-key", "secret"), ("sk-replace-me", "secret"), ("REDACTED", "secret"),
        ("insert_token_here", "secret"), ("abcdEXAMPLEKEY", "secret"), ("AKIA" + "Z" * 9 + "EXAMPLE", "id"),
        ("${DB_PASSWORD}", "password"), ("********", "password"), ("${DB_HOST}", "host"),
    ],
)  # fmt: skip
def test_placeholders_are_no_values(value: str, part: str) -> None:
    parts = {part: value} if part == "secret" else {part: value, "secret": makers.draw(makers.ALNUM, 20)}
    if part == "password":
        parts = {"password": value}
    why, note = settled("openai", **parts)
    assert why is Doubt.INCOMPLETE
    assert part in note
    assert value not in note


@pytest.mark.parametrize("value", ["changeme", "password", "example", "xxxx", "your-password", "EXAMPLE"])
def test_a_weak_password_may_be_real(value: str) -> None:
    assert ask("postgres", password=value, host="db.example") is None


@given(st.from_regex(r"[A-Za-z0-9_-]{16,80}", fullmatch=True).filter(lambda s: len(set(s)) > 9))
def test_a_random_token_is_no_placeholder(value: str) -> None:
    if not any(w in value.lower() for w in ("xxxx", "here", "example", "me", "holder", "your", "redacted")):
        assert not examples.placeholder(value)


def test_a_long_text_is_no_placeholder() -> None:
    assert not examples.placeholder("changeme " * 100)


# ── web tokens ─────────────────────────────────────────────────────────────────────────────────────────


def token(**claims: object) -> str:
    return makers.jwt(claims)


PAST, SOON, LATER = (int((NOW + timedelta(minutes=m)).timestamp()) for m in (-10, -4, 60))


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        (token(exp=PAST), True), (token(exp=float(PAST)), True), (token(exp=SOON), False), (token(exp=LATER), False),
        (token(), False), (token(exp="never"), False), (token(exp=True), False), (token(exp=12), False),
        (token(exp=1e300), False), (token(exp=-1), False), ("eyJ.eyJ.x", False), ("x.y", False), ("", False),
        ("e30.e30.x", False), ("W10.W10.x", False), ("e" * 70_000, False),
    ],
)  # fmt: skip
def test_a_token_is_dead_after_its_own_end_and_not_before(text: str, *, dead: bool) -> None:
    verdict = ask("jwt", secret=text)
    assert isinstance(verdict, Dead) is dead
    if isinstance(verdict, Dead):
        assert verdict.how is How.EXPIRED
        assert not verdict.confirmed
        assert verdict.evidence.carrier == "offline"


def test_only_kinds_that_end_at_exp_are_judged_by_it() -> None:
    expired = token(exp=PAST)
    assert ask("monday", secret=expired) is None
    assert isinstance(ask("monday", bound=True, secret=expired), Dead)
    assert ask("jwt", id="no secret") is None


@given(st.text())
def test_reading_a_token_never_raises(text: str) -> None:
    jwt.payload(text)
    jwt.expiry(f"{text}.{text}.{text}")


# ── check ──────────────────────────────────────────────────────────────────────────────────────────────


def credential(kind: str, candidates: tuple[str, ...] = (), **parts: str) -> Credential:
    held = {n: Secret(v) for n, v in parts.items()}
    return Credential(CredentialID("x"), KindID(kind), held, tuple(KindID(c) for c in candidates))


def test_check_tells_the_account_beside_the_verdict() -> None:
    known = check(None, credential("aws_akia", id=makers.aws_id("123456789012"), secret="s"), NOW)
    assert (known.verdict, known.account) == (None, "123456789012")
    known = check(None, credential("aws_akia", id=makers.aws_id("123456789012")), NOW, frozenset({"123456789012"}))
    assert isinstance(known.verdict, Undecided)
    assert check(None, credential("openai", id=makers.aws_id()), NOW).account is None


def test_check_says_between_which_kinds_a_key_stays_undecided() -> None:
    some = check(None, credential(GENERIC, ("a", "b"), secret=makers.hexes(32)), NOW).verdict
    assert isinstance(some, Undecided)
    assert (some.why, "a, b" in some.note) == (Doubt.AMBIGUOUS, True)
    many = check(None, credential(GENERIC, tuple("abcdefgh"), secret=makers.hexes(32)), NOW).verdict
    assert isinstance(many, Undecided)
    assert many.note.count(",") == 6


def test_a_spec_may_bind_its_tokens_to_exp() -> None:
    kind = Kind("monday", "Monday", "work", "https://example.com", probe="none", reason="test", jwt=True)
    expired = credential("monday", secret=token(exp=PAST))
    assert isinstance(check(kind, expired, NOW).verdict, Dead)
    assert check(None, expired, NOW).verdict is None


def test_no_evidence_holds_the_secret() -> None:
    secret = makers.github() + "x"
    for verdict in (ask("github_pat", secret=secret), ask("jwt", secret=token(exp=PAST, k=secret))):
        assert secret not in repr(verdict)
    assert ask("jwt", secret=token(exp=PAST)).evidence.digest == sha256(b"").hexdigest()  # type: ignore[union-attr]  # asserted live or dead before
