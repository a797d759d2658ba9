"""JSON Web Tokens and their issuers: who signed, until when, and never live or dead."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt as pyjwt
import makers
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ToldDoor, credential, in_turn, reply

from verifier.exchange import Reply, Request, Trouble
from verifier.model import Doubt, Undecided
from verifier.providers import jwt as provider

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.model import Verdict

KIND = provider.KINDS[0]
ISSUER = "https://login.acme.test/realms/shop"
RSA = rsa.generate_private_key(65537, 2048)
SORTS = {
    "RS256": (RSA, pyjwt.algorithms.RSAAlgorithm),
    "PS512": (RSA, pyjwt.algorithms.RSAAlgorithm),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), pyjwt.algorithms.ECAlgorithm),
    "ES384": (ec.generate_private_key(ec.SECP384R1()), pyjwt.algorithms.ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), pyjwt.algorithms.OKPAlgorithm),
}


@dataclass
class Issuer:
    """An issuer that signs with its own keys, publishes some, and may describe itself as another."""

    algorithm: str = "RS256"
    issuer: str = ISSUER
    claims: str = ISSUER
    jwks: str = "https://keys.acme.test/shop/certs?v=1"
    published: tuple[str, ...] = ("now",)
    heard: list[str] = field(default_factory=list)

    def token(self, *, kid: str | None = "now", key: Any = None, **claims: object) -> str:
        private = key or SORTS[self.algorithm][0]
        said = {"iss": self.issuer, "sub": "robot", "exp": int(time.time()) + 3600} | claims
        headers = {"kid": kid} if kid else None
        return pyjwt.encode(said, private, algorithm=self.algorithm, headers=headers)

    def __call__(self, request: Request) -> Reply:
        url = request.url.reveal()
        self.heard.append(url)
        assert request.headers == {}
        assert request.body is None
        if url == self.issuer.rstrip("/") + "/.well-known/openid-configuration":
            return reply(200, json.dumps({"issuer": self.claims, "jwks_uri": self.jwks}))
        assert url == self.jwks
        private, form = SORTS[self.algorithm]
        public = form.to_jwk(private.public_key(), as_dict=True)
        return reply(200, json.dumps({"keys": [public | {"kid": kid, "use": "sig"} for kid in self.published]}))


async def ask(issuer: Callable[[Request], Reply | Trouble], token: str) -> tuple[Verdict, ToldDoor]:
    door = ToldDoor(issuer)
    return await provider.probe(KIND, credential("jwt", secret=token), door), door


@pytest.mark.parametrize("algorithm", SORTS)
async def test_a_right_signature_is_told_and_is_not_life(algorithm: str) -> None:
    issuer = Issuer(algorithm)
    token = issuer.token()
    verdict, door = await ask(issuer, token)
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is Doubt.AMBIGUOUS
    assert "login.acme.test signed it and it is good until 20" in verdict.note
    assert verdict.evidence is not None
    assert '"signature":"right"' in verdict.evidence.excerpt
    assert len(issuer.heard) == 2
    for piece in token.split("."):
        assert all(piece not in r.url.reveal() for r in door.requests), "the token goes nowhere"
        assert piece not in repr(verdict)


async def test_a_token_without_an_end_says_so() -> None:
    issuer = Issuer()
    claims = {"iss": ISSUER}
    token = pyjwt.encode(claims, RSA, algorithm="RS256", headers={"kid": "now"})
    verdict, _ = await ask(issuer, token)
    assert isinstance(verdict, Undecided)
    assert "does not end by itself" in verdict.note


@pytest.mark.parametrize("kid", ["now", None])
async def test_a_signature_by_another_key_was_made_up(kid: str | None) -> None:
    issuer = Issuer()
    verdict, _ = await ask(issuer, issuer.token(key=rsa.generate_private_key(65537, 2048), kid=kid))
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE
    assert "made up" in verdict.note


async def test_an_end_that_somebody_moved_spoils_the_signature() -> None:
    issuer = Issuer()
    head, _, seal = issuer.token().split(".")
    other = issuer.token(exp=int(time.time()) + 10**8).split(".")[1]
    verdict, _ = await ask(issuer, f"{head}.{other}.{seal}")
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.INCOMPLETE


async def test_a_key_that_is_published_no_more_proves_nothing() -> None:
    issuer = Issuer(published=("next",))
    verdict, _ = await ask(issuer, issuer.token())
    assert isinstance(verdict, Undecided)
    assert verdict.why is Doubt.AMBIGUOUS
    assert "does not publish the key" in verdict.note


async def test_without_a_name_every_published_key_is_tried() -> None:
    issuer = Issuer(published=("a", "b"))
    verdict, _ = await ask(issuer, issuer.token(kid=None))
    assert isinstance(verdict, Undecided)
    assert "signed it" in verdict.note


@pytest.mark.parametrize(
    ("issuer", "why"),
    [
        (Issuer(claims="https://other.test"), Doubt.AMBIGUOUS),
        (Issuer(jwks="http://keys.acme.test/certs"), Doubt.UNSUPPORTED),
        (Issuer(jwks="https://a@keys.acme.test/certs"), Doubt.UNSUPPORTED),
        (Issuer(jwks="https://keys.acme.test" + "/x" * 9), Doubt.UNSUPPORTED),
        (Issuer(jwks="https://[::1/x"), Doubt.INCOMPLETE),
        (Issuer(issuer="https://a.test" + "/x" * 9), Doubt.UNSUPPORTED),
        (Issuer(issuer="http://a.test"), Doubt.UNSUPPORTED),
        (Issuer(issuer="urn:acme"), Doubt.UNSUPPORTED),
        (Issuer(issuer="https://sts.acme.test/", claims="https://sts.acme.test/"), Doubt.AMBIGUOUS),
    ],
)
async def test_issuers_that_cannot_be_asked_or_speak_for_another(issuer: Issuer, why: Doubt) -> None:
    verdict, _ = await ask(issuer, issuer.token())
    assert isinstance(verdict, Undecided), verdict
    assert verdict.why is why, verdict


@pytest.mark.parametrize(
    "answers",
    [
        (reply(404, "{}"),),
        (reply(200, "<html>", "text/html"),),
        (reply(200, "[]"),),
        (reply(200, json.dumps({"issuer": ISSUER, "jwks_uri": 7})),),
        (reply(200, json.dumps({"issuer": ISSUER, "jwks_uri": "https://a.test/k"})), reply(200, "{}")),
        (reply(200, json.dumps({"issuer": ISSUER, "jwks_uri": "https://a.test/k"})), reply(200, '{"keys":[7,{}]}')),
        (
            reply(200, json.dumps({"issuer": ISSUER, "jwks_uri": "https://a.test/k"})),
            reply(200, '{"keys":[{"kty":"RSA","kid":"now","n":"AQAB","e":7}]}'),
        ),
    ],
)
async def test_what_does_not_describe_an_issuer_is_no_verdict(answers: tuple[Reply, ...]) -> None:
    verdict, _ = await ask(in_turn(*answers), Issuer().token())
    assert isinstance(verdict, Undecided)
    assert verdict.why in {Doubt.AMBIGUOUS, Doubt.INCOMPLETE}


async def test_trouble_at_the_issuers_is_told() -> None:
    told = reply(200, json.dumps({"issuer": ISSUER, "jwks_uri": "https://a.test/k"}))
    for answers in ((Trouble(Doubt.UNREACHABLE, "down"),), (told, Trouble(Doubt.UNREACHABLE, "down"))):
        verdict, _ = await ask(in_turn(*answers), Issuer().token())
        assert isinstance(verdict, Undecided)
        assert verdict.why is Doubt.UNREACHABLE


@pytest.mark.parametrize(
    ("token", "why"),
    [(makers.jwt({"iss": ISSUER}), Doubt.UNSUPPORTED), ("eyJ.no", Doubt.INCOMPLETE), ("a.b.c", Doubt.INCOMPLETE)],
    ids=["shared key", "cut", "none"],
)
async def test_what_only_its_issuer_can_check_is_not_asked(token: str, why: Doubt) -> None:
    verdict, door = await ask(Issuer(), token)
    assert isinstance(verdict, Undecided)
    assert verdict.why is why
    assert door.requests == []


async def test_a_base_url_is_the_only_place_asked() -> None:
    door = ToldDoor(lambda _request: reply(404, "{}"))
    await provider.probe(KIND, credential("jwt", secret=Issuer().token()), door, base_url="http://127.0.0.1:9/x")
    assert [r.shown for r in door.requests] == ["http://127.0.0.1:9/x/realms/shop/.well-known/openid-configuration"]


@settings(max_examples=40)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["kty", "kid", "n", "e", "x"]), st.text(max_size=20) | st.just("RSA")),
        max_size=4,
    )
)
def test_any_set_of_keys_is_read(keys: list[dict[str, str]]) -> None:
    head = {"alg": "RS256", "kid": keys[0].get("kid") if keys else None}
    assert provider.signature(TOKEN, head, keys) in {provider.Signature.GONE, provider.Signature.WRONG}


TOKEN = Issuer().token()
