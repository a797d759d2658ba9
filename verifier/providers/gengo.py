"""Gengo: a call signed with the private key, which asks for the account of the pair. Nothing says dead.

Both keys look alike, scanners pair them in either order, and the words of a refusal are not published.
"""

from __future__ import annotations

import hmac
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from verifier.asking import exchange
from verifier.exchange import Call, Request
from verifier.model import Doubt, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "Gengo"
_DOCS = "https://developers.gengo.com/v2/api_methods/account"
_SIGNING = "https://developers.gengo.com/v2/authentication/"
HOST = "api.gengo.com"
_PATH = "/v2/account/me"
_KEY = re.compile(r"[\w\[\](){}|^@$=~!-]{64}")
_READS = "names the account that the pair belongs to; no job and no text is read"

KINDS: tuple[Kind, ...] = (
    Kind(
        id="gengo",
        title="Gengo public and private key",
        category="saas",
        docs=_DOCS,
        parts=("secret", "id"),
        probe="code",
        limits=Limits(rate=1, burst=2, concurrency=1),
        identity=IdentitySpec(principal=("response.email", "response.display_name")),
        aliases={"trufflehog": ("Gengo",)},
        calls=(Call(kind="gengo", method="GET", scheme="https", host=HOST, path=_PATH, reads=_READS, docs=_DOCS),),
        rule=(
            Rule(
                verdict="live",
                status=200,
                json={"opstat": "ok"},
                has=("response.email", "response.language_code"),
                note="names its account",
                source=_DOCS,
            ),
            Rule(
                verdict="undecided",
                status=(200, 400, 401, 403),
                json={"opstat": ("err", "error")},
                why=Doubt.AMBIGUOUS,
                note="refused: an unknown pair, the two keys in the wrong order, or our clock",
                source=_SIGNING,
            ),
        ),
        example=(
            Example(
                status=200,
                verdict="live",
                body='{"opstat":"ok","response":{"email":"john@gengo.com","full_name":"John Doe","display_name":'
                '"johnny","language_code":"en"}}',
                source=_DOCS,
            ),
            Example(
                status=401,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"opstat":"err","err":{"code":1100,"msg":"unauthorized"}}',
                constructed=True,
            ),
            Example(
                status=200,
                verdict="undecided",
                why=Doubt.AMBIGUOUS,
                body='{"opstat":"ok","response":{}}',
                constructed=True,
            ),
            Example(
                status=403,
                verdict="undecided",
                why=Doubt.BLOCKED,
                body="<html>Access denied</html>",
                constructed=True,
            ),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whose account the pair opens."""
    public, private = (credential.parts[name].reveal().strip() for name in ("id", "secret"))
    if not _KEY.fullmatch(public) or not _KEY.fullmatch(private):
        return Undecided(Doubt.INCOMPLETE, note="one of the two keys was cut out badly")
    base = (base_url or f"https://{HOST}").rstrip("/")
    now = str(int(time.time()))
    signature = sign(private, now)
    query = urlencode({"api_key": public, "api_sig": signature, "ts": now})
    request = Request(
        call=kind.calls[0],
        url=Secret(f"{base}{_PATH}?{query}"),
        shown=base + _PATH,
        headers={"Accept": Secret("application/json")},
        carrier="url",
    )
    said, _ = await exchange(kind, request, door, (private, public, signature))
    return said


def sign(private: str, now: str) -> str:
    """Return the signature of a moment: HMAC-SHA1 in hex, as Gengo prescribes it."""
    return hmac.digest(private.encode(), now.encode(), "sha1").hex()
