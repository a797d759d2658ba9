"""What each spec would send: every request is on the manifest, carries the key once filled, and never shows it."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from verifier.catalogue import load_catalogue
from verifier.egress.manifest import Manifest
from verifier.exchange import Request
from verifier.model import Credential, CredentialID, KindID
from verifier.probe import _bases, build, values
from verifier.secret import Secret
from verifier.spec import Probe

if TYPE_CHECKING:
    from verifier.spec import Kind

CATALOGUE = load_catalogue()
ASKED = [k for k in CATALOGUE if isinstance(k.probe, Probe)]
MANIFEST = Manifest(CATALOGUE.manifest(), {})
PLACES = {"host": "instance.example.com", "region": "eu-west-1", "port": "443"}
ASCII = st.characters(codec="ascii", categories=("L", "N"))
ASCII_WIDE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = re.compile(rf"(?:[a-z]+://)?{LABEL}(?:\.{LABEL})*(?::\d+)?(?:/.*)?")
"""A host that can be one: a lax shape lets `-..example.com` through, which the door refuses."""


@st.composite
def credentials(draw: st.DrawFn, kind: Kind) -> Credential:
    """Draw a credential of a kind: each part by a shape of its own where there is one."""
    parts = {}
    for part in (*kind.parts, *kind.optional):
        patterns = [s.pattern for s in kind.shape if s.part == part]
        if part in PLACES and all(re.fullmatch(p, PLACES[part]) for p in patterns):
            parts[part] = PLACES[part]
        elif patterns:
            wanted = [p for p in patterns if set(re.compile(p).groupindex) & kind.probe.fields()] or patterns
            drawn = st.from_regex(draw(st.sampled_from(wanted)), fullmatch=True, alphabet=ASCII_WIDE)
            parts[part] = draw(drawn.filter(HOST.fullmatch) if part == "host" else drawn)
        else:
            parts[part] = draw(st.text(ASCII, min_size=24, max_size=40))
    return Credential(CredentialID(kind.id), KindID(kind.id), {name: Secret(value) for name, value in parts.items()})


@pytest.mark.parametrize("kind", ASKED, ids=lambda k: k.id)
@settings(max_examples=2, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_requests_are_on_the_manifest_and_carry_the_key(kind: Kind, data: st.DataObject) -> None:
    credential = data.draw(credentials(kind))
    fields = values(kind, credential)
    assert fields is not None
    bases = _bases(kind.probe, fields, None)
    assert bases
    secret = credential.parts["secret"].reveal() if "secret" in credential.parts else ""
    telling = [fields[f] for f in kind.probe.fields() & fields.keys() if len(fields[f]) >= 12 and fields[f] in secret]
    assert telling or len(secret) < 12, "no field of the probe is the key, or the part of it that matters"
    for base in bases:
        request = build(kind, kind.probe, base, fields)
        assert isinstance(request, Request)
        MANIFEST.match(request.call, request.url.reveal())
        for value in telling:
            assert value not in request.shown
            assert any(_holds(sent, value) for sent in _sent(request)), "the key is not in the request"


def _sent(request: Request) -> list[str]:
    body = request.body.reveal() if request.body is not None else ""
    return [unquote(request.url.reveal()), body, unquote(body), *(h.reveal() for h in request.headers.values())]


def _holds(sent: str, secret: str) -> bool:
    """Whether `sent` holds the secret as it is, or inside base64 of `user:secret` at any of three offsets."""
    if secret in sent:
        return True
    inner = [b64encode(b"\0" * pad + secret.encode()).decode() for pad in range(3)]
    return any(b64[4:-4] in sent for b64 in inner)
