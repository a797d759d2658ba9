"""Who is told what: a digest by Apprise, issues by API. The same key and state is told once; the ledger remembers.

Apprise addresses hold secrets, so the config has references to them. Nothing told is secret: short ids, places, names.
"""

from __future__ import annotations

import base64
import logging
import warnings
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from lapse.diff import KeyDelta
from lapse.exits import Exit, Stop
from lapse.ledger.chain import EventKind
from lapse.nightly.web import Trouble, post
from lapse.output.console import safe
from lapse.references import resolve
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lapse.config import Config
    from lapse.diff import DiffOut
    from lapse.ledger import Ledger
    from lapse.sections import TicketConfig
    from verifier.model import CredentialID

State: TypeAlias = Literal["revived", "live", "removed", "breach", "died", "ticket", "proposed"]
DETAIL = "told"
"""The field of a ledger note that says which state of its keys was told."""

_HEADS: Mapping[State, str] = {
    "revived": "BACK FROM THE DEAD: proven dead before, works again",
    "live": "LIVE",
    "removed": "REMOVED FROM SOURCE, NEVER REVOKED",
    "breach": "LIVE FOR TOO LONG",
    "died": "PROVEN DEAD",
}


class Item(Struct, frozen=True):
    """One key in one state, and what was done about it."""

    state: State
    key: KeyDelta
    acted: str = ""

    @property
    def urgent(self) -> bool:
        """Whether it must not wait for the morning."""
        return self.state == "revived" or (self.state == "live" and self.key.exposure == "public")


class Sender(Protocol):
    """Sends one message to one address (which holds a secret); False when it was not taken."""

    def __call__(self, address: str, title: str, body: str, *, urgent: bool) -> bool:
        """Send it."""
        ...


def by_apprise(address: str, title: str, body: str, *, urgent: bool) -> bool:
    """Send by Apprise, which says nothing in our logs: its messages quote addresses."""
    for name in ("apprise", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own modules, loaded at the first address; nothing for our users
        import apprise  # noqa: PLC0415  # slow to import, and only where somebody is told

        box = apprise.Apprise()
        if not box.add(address):
            return False
        kind = apprise.NotifyType.WARNING if urgent else apprise.NotifyType.INFO
        return bool(box.notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT))


def told(ledger: Ledger, names: Sequence[CredentialID]) -> dict[str, frozenset[str]]:
    """Return, by id, which states of each key were told since it last turned (died, revived, was first found)."""
    found: dict[str, frozenset[str]] = {}
    for name, _, notes in ledger.remarks(names):
        states = {n.detail[DETAIL] for n in notes if DETAIL in n.detail}
        found[name] = frozenset(states | ({"live"} if "revived" in states else set()))
    return found


def note(ledger: Ledger, state: State, ids: Sequence[CredentialID], text: str, **more: str) -> None:
    """Record that a state of these keys was told."""
    if ids:
        ledger.note(EventKind.NOTE, text, ids, {DETAIL: state, **more})


class Notifier:
    """Tells the news of a night to those whom the config names. `failed`: which targets did not take it."""

    def __init__(self, config: Config, send: Sender = by_apprise) -> None:
        """Resolve every reference now: a missing secret is found before the night, not after it."""
        self._config, self._send = config.notify, send
        self._everyone = _addresses(config.notify.urls, "notify.urls")
        self._urgent = _addresses(config.notify.urgent, "notify.urgent")
        self._owners = {o.name: _addresses(o.notify, "owner.notify") for o in config.owner if o.name and o.notify}
        self.failed: list[str] = []
        self.sent = 0

    @property
    def idle(self) -> bool:
        """Whether nobody is to be told."""
        return not (self._everyone or self._urgent or self._owners)

    def fresh(self, ledger: Ledger, items: Iterable[Item]) -> list[Item]:
        """Leave out what was told before."""
        listed = list(items)
        known = told(ledger, list(dict.fromkeys(i.key.id for i in listed)))
        return [i for i in listed if i.state not in known[i.key.id]]

    def tell(self, ledger: Ledger, items: Iterable[Item], alarms: Sequence[str], counts: str) -> int:
        """Send what is new, and record it; return how many keys' states were told. No news, no message."""
        if self.idle:
            return 0
        news = self.fresh(ledger, items)
        reached: set[tuple[str, str]] = set()
        audiences: list[tuple[str, Mapping[str, str], list[Item], Sequence[str]]] = [
            ("everyone", self._everyone, news, alarms),
            ("urgent", self._urgent, [i for i in news if i.urgent], alarms),
        ]
        audiences += [(n, to, [i for i in news if i.key.owner == n], ()) for n, to in self._owners.items()]
        for _, addresses, mine, loud in audiences:
            if addresses and (mine or loud) and self._deliver(addresses, mine, loud, counts):
                reached |= {(i.state, i.key.id) for i in mine}
        for state in _HEADS:
            ids = list(dict.fromkeys(i.key.id for i in news if i.state == state and (state, i.key.id) in reached))
            note(ledger, state, ids, f"told: {state}")
        return len(reached)

    def _deliver(self, addresses: Mapping[str, str], items: Sequence[Item], alarms: Sequence[str], counts: str) -> bool:
        """Send to each address; True when at least one took everything."""
        messages = list(self._messages(items, alarms, counts))
        urgent = bool(alarms) or any(i.urgent for i in items)
        done = False
        for name, address in addresses.items():
            if all(self._send(address, title, body, urgent=urgent) for title, body in messages):
                self.sent += len(messages)
                done = True
            else:
                self.failed.append(f"{name} did not take the message")
        return done

    def _messages(self, items: Sequence[Item], alarms: Sequence[str], counts: str) -> Iterator[tuple[str, str]]:
        if self._config.digest:
            yield f"Lapse: {counts}", digest(items, alarms, self._config.lines)
            return
        yield from (("Lapse: alarm", text) for text in alarms)
        for item in items:
            yield f"Lapse: {item.key.key} {item.state}", _line(item)


def digest(items: Sequence[Item], alarms: Sequence[str], most: int) -> str:
    """Return the text of a digest: alarms, then keys by state, `most` of them named."""
    lines = [f"ALARM: {safe(text)}" for text in alarms]
    left = most
    for state, head in _HEADS.items():
        mine = [i for i in items if i.state == state]
        if not mine:
            continue
        lines += ["", f"{head} ({len(mine)})"]
        lines += [f"- {_line(i)}" for i in mine[: max(0, left)]]
        if len(mine) > max(0, left):
            lines.append(f"- and {len(mine) - max(0, left)} more: lapse diff")
        left -= len(mine)
    return "\n".join(lines).strip()


def _line(item: Item) -> str:
    k = item.key
    exposed = "public, " if k.exposure == "public" else ""
    who = f" {safe(k.principal)}" if k.principal else ""
    acted = f" → {safe(item.acted)}" if item.acted else ""
    return (
        f"{k.key} {k.provider}{who} ({exposed}{safe(k.owner)}, {plural(round(k.days), 'day')}) {safe(k.where)}{acted}"
    )


def items(news: DiffOut, acted: Mapping[str, str], quiet: frozenset[str] = frozenset()) -> list[Item]:
    """Return what there is to tell of a night. Of keys in `quiet` (policy: nothing) only deaths and revivals."""
    found = [Item("revived", d, acted.get(d.id, "")) for d in news.revived]
    revived = {d.id for d in news.revived}
    dead = {d.id for d in (*news.died, *news.unproven)}
    living = [d for d in (*news.new, *news.still_live) if d.id not in revived | quiet | dead]
    found += [Item("live", d, acted.get(d.id, "")) for d in living]
    found += [Item("removed", d) for d in news.removed_never_revoked if d.id not in quiet]
    found += [Item("breach", d) for d in news.breaches if d.id not in quiet]
    return [*found, *(Item("died", d) for d in news.died)]


def _addresses(references: Sequence[str], where: str) -> dict[str, str]:
    return {r: resolve(r, where).reveal() for r in references}


# ── issues ─────────────────────────────────────────────────────────────────────────────────────────────


class Tracker(Protocol):
    """Where issues are opened."""

    def open(self, title: str, body: str) -> str:
        """Open an issue; return its address. Raises `Trouble`."""
        ...


def tracker(config: TicketConfig) -> Tracker | None:
    """Return the tracker of the config, if it names one."""
    if not config.kind:
        return None
    base = (config.base_url or "https://api.github.com").rstrip("/")
    parts = urlsplit(base)
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost"}:
        raise Stop(f"notify.ticket.base_url: {base} is not https://; a token never travels in the clear", Exit.USAGE)
    token = resolve(config.token, "notify.ticket.token").reveal()
    if config.kind == "github":
        return _GitHub(base, config, token)
    return _Jira(base, config, token)


class _Opened(Struct):
    key: str = ""
    html_url: str = ""


class _GitHub:
    def __init__(self, base: str, config: TicketConfig, token: str) -> None:
        self._url, self._config = f"{base}/repos/{config.project}/issues", config
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/vnd.github+json"}

    def open(self, title: str, body: str) -> str:
        wanted = {"title": title, "body": body, "labels": list(self._config.labels)}
        return _opened(self._url, self._headers, wanted).html_url or self._url


class _Jira:
    def __init__(self, base: str, config: TicketConfig, token: str) -> None:
        self._base, self._config = base, config
        basic = base64.b64encode(f"{config.user}:{token}".encode()).decode()
        self._headers = {"authorization": f"Basic {basic}" if config.user else f"Bearer {token}"}

    def open(self, title: str, body: str) -> str:
        c = self._config
        fields = {
            "project": {"key": c.project},
            "summary": title,
            "description": body,
            "issuetype": {"name": c.issue_type},
            "labels": list(c.labels),
        }
        made = _opened(f"{self._base}/rest/api/2/issue", self._headers, {"fields": fields})
        return f"{self._base}/browse/{made.key}"


def _opened(url: str, headers: Mapping[str, str], wanted: Mapping[str, object]) -> _Opened:
    answer = post(url, headers, msgspec.json.encode(wanted))
    try:
        return msgspec.json.decode(answer.body, type=_Opened)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Trouble(f"{url} opened an issue, but its answer cannot be read") from None
