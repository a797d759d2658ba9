"""What every provider file must satisfy, TOML or Python. A new file is tested by being there."""

from __future__ import annotations

import re

import msgspec
import pytest
from noise import NOISE

from verifier.catalogue import load_catalogue
from verifier.exchange import Reply
from verifier.rules import Judge
from verifier.spec import Example, Kind, Probe

CATALOGUE = load_catalogue()
KINDS = list(CATALOGUE)
JUDGED = [k for k in KINDS if k.rule]
SECRET = "Zq7" * 20
PLACEHOLDER = re.compile(r"\{secret\}")


def reply_of(example: Example) -> Reply:
    """Return the example as the door would hand it over."""
    headers = {k.lower(): v for k, v in example.headers.items()}
    body = PLACEHOLDER.sub(SECRET, example.body).encode()
    if "content-type" not in headers and body:
        headers["content-type"] = _guess(body)
    return Reply(example.status, headers, body, "example.test")


def _guess(body: bytes) -> str:
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "text/html" if body.lstrip().startswith(b"<") else "text/plain"
    return "application/json"


@pytest.mark.parametrize("kind", JUDGED, ids=lambda k: k.id)
def test_every_example_gets_its_verdict(kind: Kind) -> None:
    judge = Judge(kind)
    for n, example in enumerate(kind.example):
        ruling = judge(reply_of(example), SECRET)
        said = (ruling.verdict, ruling.how if example.how else None, ruling.why if example.why else None)
        assert said == (example.verdict, example.how, example.why), f"example {n}: {ruling.note}"


@pytest.mark.parametrize("kind", JUDGED, ids=lambda k: k.id)
def test_no_rule_shadows_another(kind: Kind) -> None:
    """Each rule is the one that decides at least one example: none is dead text behind an earlier one."""
    judge = Judge(kind)
    deciding = {judge.which(reply_of(e)) for e in kind.example}
    for n, rule in enumerate(kind.rule):
        assert n in deciding, f"rule {n} ({rule.verdict}: {rule.note}) decides no example"


@pytest.mark.parametrize("kind", JUDGED, ids=lambda k: k.id)
def test_there_are_examples_of_all_three_answers(kind: Kind) -> None:
    told = {"live" if e.verdict == "restricted" else e.verdict for e in kind.example}
    can = {"live", "undecided"} | ({"dead"} if any(r.verdict == "dead" for r in kind.rule) else set())
    assert told >= can
    assert len(kind.example) >= 4


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.id)
def test_calls_are_read_only_and_say_why(kind: Kind) -> None:
    for call in kind.manifest():
        assert call.method in {"GET", "HEAD", "POST", "LOGIN"}
        assert len(call.reads) >= 12
        assert call.docs.startswith("https://")
        assert call.scheme != "http" or kind.id == "private_key_tls"  # OCSP and CRLs are signed, and plain by nature
    if kind.probe != "none" and kind.id != "basic_auth_url":  # whose calls the config brings, host by host
        assert kind.manifest()


@pytest.mark.parametrize("kind", JUDGED, ids=lambda k: k.id)
def test_the_noise_of_the_net_is_never_a_verdict(kind: Kind) -> None:
    judge = Judge(kind)
    for stray in NOISE:
        ruling = judge(stray.reply(), SECRET)
        assert ruling.verdict == "undecided", f"{stray.name}: {ruling}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.id)
def test_shapes_are_of_declared_parts(kind: Kind) -> None:
    for shape in kind.shape:
        assert shape.part in {*kind.parts, *kind.optional}


def test_probes_declare_what_they_send() -> None:
    for kind in KINDS:
        if isinstance(kind.probe, Probe):
            assert kind.probe.fields(), kind.id
