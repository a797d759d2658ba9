"""SSH log-ins: a password or a private key at a named server, and a private key at GitHub and GitLab.

A key says nothing about where it opens. Found beside a server's name it is asked there; alone it is asked at the two
forges that tell whose it is, by its signature only. A refusal speaks of one server, never of the key: without a name
it stays Undecided, and with one it is Dead only where the same server had let us in before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from verifier import ssh
from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.secret import Secret
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import Account, Said, login

if TYPE_CHECKING:
    from verifier.exchange import Admitted, Door
    from verifier.model import Credential, Verdict

TITLE = "SSH"


class _Forge(NamedTuple):
    """A host of git repositories that knows its users by their keys."""

    host: str
    docs: str
    pins: frozenset[str]
    """SHA-256 fingerprints of its host keys, as it publishes them."""


FORGES = (
    _Forge(
        "github.com",
        "https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/githubs-ssh-key-fingerprints",
        frozenset(
            {
                "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU",
                "SHA256:p2QAMXNIC1TJYWeIOttrVc98/R1BUFWu3/LiyKgUfQM",
                "SHA256:uNiVztksCsDhcc0u9e8BujQXVUpKZIDTMczCvj3tD2s",
            }
        ),
    ),
    _Forge(
        "gitlab.com",
        "https://docs.gitlab.com/user/gitlab_com/#ssh-host-keys-fingerprints",
        frozenset(
            {
                "SHA256:eUXGGm1YGsMAS7vkcx6JOJdOGHPem5gQp4taiCfCLB8",
                "SHA256:HbW3g8zUjNSksFbqTiUWPWg2Bq1x8xdGUrliXFzSnUw",
                "SHA256:ROQFvPThGrW4RuWLoL9tq9I9zJ42fK4XywyRtbOz/EQ",
            }
        ),
    ),
)
_TESTING = "https://docs.github.com/en/authentication/connecting-to-github-with-ssh/testing-your-ssh-connection"
_ELSEWHERE = "this server does not know the key, which may open others that nobody named"


def _said(verdict: str, answer: str, extra: str, how: How | None = None, why: Doubt | None = None) -> Example:
    body = f'{{"asked":"publickey","answer":"{answer}",{extra}}}'
    return Example(status=0, verdict=verdict, body=body, how=how, why=why, constructed=True)  # type: ignore[arg-type]  # words of the specs, checked by msgspec


KINDS: tuple[Kind, ...] = (
    Kind(
        id="ssh_password",
        title="SSH log-in by password",
        category="generic",
        docs=ssh.AUTHENTICATION,
        parts=("username", "password", "host"),
        optional=("port", "path"),
        probe="code",
        by_address=True,  # sshd refuses by address, by group and by its list of users in the same words
        identity=IdentitySpec(principal="user"),
        limits=Limits(rate=1, burst=1, concurrency=1),
        calls=(
            Call(
                kind="ssh_password",
                method="LOGIN",
                scheme="ssh",
                host="{host}",
                path="/",
                reads="authenticates at a server whose host key is known; no session is opened",
                docs=ssh.AUTHENTICATION,
            ),
        ),
        rule=ssh.PASSWORD_RULES,
        example=ssh.PASSWORD_EXAMPLES,
    ),
    Kind(
        id="ssh_key",
        title="SSH private key",
        category="generic",
        docs=ssh.AUTHENTICATION,
        optional=("username", "host", "port"),
        probe="code",
        by_address=True,  # `from=` in authorized_keys
        console="https://github.com/settings/keys",
        identity=IdentitySpec(principal=("account", "user")),
        limits=Limits(rate=2, burst=2, concurrency=2),
        calls=(
            Call(
                kind="ssh_key",
                method="LOGIN",
                scheme="ssh",
                host="{host}",
                path="/",
                reads="authenticates by a signature that is good for this connection only; no session is opened",
                docs=ssh.AUTHENTICATION,
            ),
            *(
                Call(
                    kind="ssh_key",
                    method="LOGIN",
                    scheme="ssh",
                    host=forge.host,
                    path="/",
                    reads="`ssh -T`: the host says whom it sees and hangs up; no command is given",
                    docs=_TESTING,
                )
                for forge in FORGES
            ),
        ),
        rule=(
            Rule(
                verdict="live",
                status=0,
                json={"asked": "publickey", "answer": "accepted"},
                has=("user", "fingerprint"),
                note="logged in by the key's signature",
                source=ssh.AUTHENTICATION,
            ),
            Rule(
                verdict="dead",
                status=0,
                json={"asked": "publickey", "answer": "refused", "host_key": "known", "named": True},
                how=How.REJECTED,
                arrival=Arrival.PROVEN,
                note="the server named beside it, whose host key is known, does not know the key any more",
                source=ssh.AUTHENTICATION,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"asked": "publickey", "answer": "refused"},
                why=Doubt.INCOMPLETE,
                note=_ELSEWHERE,
            ),
            Rule(
                verdict="undecided",
                status=0,
                json={"asked": "publickey", "answer": "neither"},
                why=Doubt.AMBIGUOUS,
                note="the server neither let us in nor asked again: it may want a second proof besides the key",
            ),
        ),
        example=(
            _said("live", "accepted", '"host_key":"known","fingerprint":"SHA256:xxxx","user":"git","account":"app"'),
            _said("dead", "refused", '"host_key":"known","named":true,"user":"app"', how=How.REJECTED),
            _said("undecided", "refused", '"host_key":"known","named":false,"user":"git"', why=Doubt.INCOMPLETE),
            _said("undecided", "refused", '"host_key":"unknown","named":true,"user":"app"', why=Doubt.INCOMPLETE),
            _said("undecided", "neither", '"host_key":"known","named":true,"user":"app"', why=Doubt.AMBIGUOUS),
        ),
    ),
)


async def probe(kind: Kind, credential: Credential, door: Door, *, base_url: str | None = None) -> Verdict:
    """Ask whether the log-in still works; a key without a server is asked at the forges."""
    name = credential.parts.get("username")
    user = name.reveal().strip() if name is not None else ""
    if kind.id == "ssh_password":
        if not user:
            return Undecided(Doubt.INCOMPLETE, note="the log-in has no name")
        return await login(kind, credential, door, ssh.password, ssh.PORT, base_url)
    place = credential.parts.get("host")
    host = place.reveal().strip().lower() if place is not None else ""
    if base_url is None and not host:
        return await _anywhere(kind, credential, door)
    forge = next((f for f in FORGES if f.host == host and base_url is None), None)
    if forge is None and not user:
        return Undecided(Doubt.INCOMPLETE, note="needs the name of the user that the key belongs to at this server")
    return await _at(kind, credential, door, user or "git", forge, base_url, named=True)


async def _anywhere(kind: Kind, credential: Credential, door: Door) -> Verdict:
    """Ask the forges one after another until one lets the key in; what all refuse may open something else."""
    doubt: Verdict | None = None
    for forge in FORGES:
        found = await _at(kind, credential, door, "git", forge, None, named=False)
        if not isinstance(found, Undecided):
            return found
        if doubt is None or found.why is not Doubt.INCOMPLETE:
            doubt = found
    return doubt or Undecided(Doubt.INCOMPLETE, note=_ELSEWHERE)


async def _at(
    kind: Kind,
    credential: Credential,
    door: Door,
    user: str,
    forge: _Forge | None,
    base_url: str | None,
    *,
    named: bool,
) -> Verdict:
    async def handshake(admitted: Admitted, account: Account) -> Said:
        """Offer the key."""
        said = await ssh.key(admitted, account, forge.pins if forge else (), greeted=forge is not None)
        return {**said, "named": named}

    parts = {**credential.parts, "username": Secret(user), "password": credential.parts["secret"]}
    asked = replace(credential, parts=parts)
    if forge is None:
        return await login(kind, asked, door, handshake, ssh.PORT, base_url)
    call = next(c for c in kind.calls if c.host == forge.host)
    return await login(
        replace(kind, calls=(call,)), asked, door, handshake, ssh.PORT, None, places=[(forge.host, ssh.PORT)]
    )
