"""No fragment of a secret survives redaction, however the text spells it."""

from __future__ import annotations

import html
import json
import string
from base64 import b32encode, b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.redact import FRAGMENT, MASK, excerpt, redact

SECRET = "Zq7" + "-w/+=" + "Kx9" * 9 + '"\\é%&' + "end"

_secrets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=FRAGMENT, max_size=60) | st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=FRAGMENT, max_size=40
)
_words = st.text(string.ascii_letters + string.digits + " {}:,\"'<>é", max_size=40)

SPELLINGS = {
    "raw": lambda s: s,
    "percent": lambda s: quote(s, safe=""),
    "percent, lower case": lambda s: quote(s, safe="").lower(),
    "every byte percent": lambda s: "".join(f"%{b:02X}" for b in s.encode()),
    "form": quote_plus,
    "percent twice": lambda s: quote(quote(s, safe=""), safe=""),
    "json": lambda s: json.dumps(s)[1:-1],
    "json, not ascii": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "json in json": lambda s: json.dumps(json.dumps(s))[1:-1],
    "json, slashes": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "html": html.escape,
    "html, decimal": lambda s: "".join(f"&#{ord(c)};" for c in s),
    "html, hex": lambda s: "".join(f"&#x{ord(c):x};" for c in s),
    "base64": lambda s: b64encode(s.encode()).decode(),
    "base64, urlsafe": lambda s: urlsafe_b64encode(s.encode()).decode(),
    "base64, no padding": lambda s: b64encode(s.encode()).decode().rstrip("="),
    "basic": lambda s: b64encode(f"me:{s}".encode()).decode(),
    "basic, other offset": lambda s: b64encode(f"user:{s}:".encode()).decode(),
    "basic, third offset": lambda s: b64encode(f"x:{s}=!".encode()).decode(),
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
    "upper": str.upper,
    "lower": str.lower,
}


def _leaks(text: str, spelt: str) -> bool:
    return any(spelt[i : i + FRAGMENT] in text for i in range(len(spelt) - FRAGMENT + 1))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_goes(spelling: str) -> None:
    spelt = SPELLINGS[spelling](SECRET)
    text = redact(f'{{"error":"bad key {spelt} given"}}', [SECRET])
    assert MASK in text
    assert not _leaks(text, spelt)
    assert text.startswith('{"error":"bad key ')


@given(
    secret=_secrets,
    before=_words,
    after=_words,
    spelling=st.sampled_from([n for n in SPELLINGS if n not in {"upper", "lower"}]),
)
def test_no_fragment_of_any_secret_survives(secret: str, before: str, after: str, spelling: str) -> None:
    spelt = SPELLINGS[spelling](secret)
    text = redact(f"{before} {spelt} {after}", [secret])
    rest = text.replace(MASK, "\0")
    assert secret not in rest
    assert not _leaks(rest, spelt) or _leaks(f"{before} | {after}", spelt)


@given(secret=_secrets.filter(str.isascii), start=st.integers(0, 60), size=st.integers(FRAGMENT, 40), before=_words)
def test_a_fragment_goes_as_well(secret: str, start: int, size: int, before: str) -> None:
    part = secret[start : start + size]
    text = redact(f"{before}<{part}>", [secret])
    assert len(part) < FRAGMENT or part not in text.replace(MASK, "\0")


@given(st.text(max_size=200))
def test_text_without_secrets_is_left_alone(text: str) -> None:
    assert redact(text, []) == text
    assert redact(text, ["\U0010fffd" * 20]) == text


def test_a_run_of_twelve_is_a_fragment_and_eleven_is_not() -> None:
    secret = "abcdefghijklmnopqrstuvwxyz"
    assert redact(f"<{secret[5:17]}>", [secret]) == f"<{MASK}>"
    assert redact(f"<{secret[5:16]}>", [secret]) == f"<{secret[5:16]}>"


def test_masked_echo_stays_readable() -> None:
    secret = "sk-" + "Ab3" * 12 + "wxyz"
    said = "Incorrect API key provided: sk-Ab3Ab***********************wxyz. You can find"
    assert redact(said, [secret]) == said
    assert excerpt(said.encode(), "application/json", [secret]) == said


def test_short_secret_goes_whole() -> None:
    assert redact("login hunter2 failed", ["hunter2"]) == f"login {MASK} failed"
    assert redact("token " + b64encode(b"me:hunter2").decode(), ["hunter2"]) == f"token {MASK}"
    assert redact("an x", ["x"]) == f"an {MASK}"


def test_several_secrets_and_overlaps() -> None:
    one, two = "A1" * 10, "B2" * 10
    assert redact(f"{one}{two} and {two}", [one, two, one]) == f"{MASK} and {MASK}"


def test_lone_surrogates_do_not_break() -> None:
    assert redact("\ud800 " + "q7" * 8, ["q7" * 8]) == f"\ud800 {MASK}"
    assert MASK in redact("&#55296; &#9999999; " + "q7" * 8, ["q7" * 8])


@pytest.mark.parametrize(
    ("body", "content_type", "shown"),
    [
        (b"plain", "text/plain", "plain"),
        (b"\x1b[31mred\x07\r\n\tnext", "text/plain", "[31mred next"),
        ("a\u202eb\u200bc\u2066d".encode(), "text/plain", "abcd"),
        (b"caf\xe9", "text/plain", "caf\ufffd"),
        ("hé".encode("utf-16"), "application/json", "hé"),
        ("hé".encode("utf-16-be"), "application/json; charset=utf-16BE", "hé"),
        ("hé".encode("utf-16-le"), "application/json; charset=utf-16", "hé"),
        ("\ufeffhé".encode("utf-32-le"), "", "hé"),
        (b"", "", ""),
        (b"x " * 5000, "text/html", "x " * 149 + "x…"),
        (b'{"access_token":"abcdefgh12345678","n":1}', "", f'{{"access_token":"{MASK}","n":1}}'),
        (b'{"client_secret" : "a.b.c.d.e.f"}', "", f'{{"client_secret" : "{MASK}"}}'),
        (b'{"error":"invalid_token_given_to_us_by_you"}', "", '{"error":"invalid_token_given_to_us_by_you"}'),
    ],
)
def test_excerpt(body: bytes, content_type: str, shown: str) -> None:
    assert excerpt(body, content_type, ["q7" * 10]) == shown


def test_excerpt_masks_fresh_tokens() -> None:
    token = "Ab1" * 12
    assert excerpt(f"here: {token}".encode(), "", []) == f"here: {MASK}"
    assert token not in excerpt(f"eyJhbGciOi{token}.{token}.{token}".encode(), "", [])


def test_excerpt_is_not_fooled_by_invisible_letters() -> None:
    secret = "Kx9" * 8
    woven = "\u200b".join(secret)
    assert secret not in excerpt(woven.encode(), "text/plain", [secret])


@given(secret=st.text(string.ascii_lowercase + string.digits, min_size=4, max_size=40), at=st.integers(0, 5000))
def test_excerpt_never_holds_the_secret_wherever_it_stands(secret: str, at: int) -> None:
    body = b". " * (at // 2) + secret.encode() + b" ." * 3000
    assert secret not in excerpt(body, "text/plain", [secret], limit=6000)


def test_base32_is_not_promised() -> None:
    """What the module does not claim: documented here so that a change of mind is a decision."""
    spelt = b32encode(SECRET.encode()).decode()
    assert redact(spelt, [SECRET]) == spelt
