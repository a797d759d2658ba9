"""SSH log-ins: a password or a private key at a named server, and a private key at GitHub and GitLab.

A key says nothing about where it opens. Found beside a server's name it is asked there; alone it is asked at the two
forges that tell whose it is, by its signature only. A refusal speaks of one server, never of the key: without a name
it stays Undecided, and with one it is Dead only where the same server had let us in before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier import ssh
from verifier.exchange import Call
from verifier.model import Arrival, Doubt, How, Undecided
from verifier.spec import Example, IdentitySpec, Kind, Limits, Rule
from verifier.wire import login

if TYPE_CHECKING:
    from verifier.exchange import Door
    from verifier.model import Credential, Verdict

TITLE = "SSH"


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
            *ssh.forge_calls("ssh_key"),
        ),
        rule=(
            ssh.KEY_ACCEPTED,
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
                note=ssh.ELSEWHERE,
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
        return await ssh.anywhere(kind, credential, door)
    forge = next((f for f in ssh.FORGES if f.host == host and base_url is None), None)
    if forge is None and not user:
        return Undecided(Doubt.INCOMPLETE, note="needs the name of the user that the key belongs to at this server")
    return await ssh.at(kind, credential, door, user or "git", forge, base_url, named=True)
