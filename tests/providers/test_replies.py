"""The published replies of real providers, replayed to the rules: none may be read as more than it says.

`replies.jsonl` holds one reply a line: who sent it to which request, what it means and where it was published.
Rows of kinds that the catalogue does not judge by rules are passed over, and come alive when a spec is added.
"""

from __future__ import annotations

import ast
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec import Struct

from verifier.catalogue import load_catalogue
from verifier.exchange import Reply
from verifier.model import Arrival
from verifier.rules import Judge, Ruling
from verifier.spec import GENERIC_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.spec import Kind

DAY = 86_400.0
OTHER_KIND = {
    ("anthropic", "oauth token"): "anthropic_oauth",
    ("azure_devops", "bearer token"): "entra_bearer",
    ("square", "oauth app pair"): "square_app",
    ("twitch", "client pair"): "twitch_client",
}
"""Rows filed under a vendor whose credential is another kind of key, ours or not."""

SDK = re.compile(r"^Error code: \d{3} - (?=\{)")
"""How an SDK prints a JSON error: its body follows as a Python dict."""

RENDERED = re.compile(r"<Response \[\d+\]>")
"""How another prints the reply it got: what the provider wrote is lost."""


class Row(Struct, frozen=True):
    """One published reply. `meaning` and `also_means` are `live[-restricted]`, `dead-HOW` or `undecided-WHY`."""

    provider: str
    credential_kind: str
    request: str
    status: int
    headers: dict[str, str]
    body: str
    meaning: str
    why: str
    source: str
    confidence: str
    body_kind: str
    also_means: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The id of the kind of key that the row is about."""
        return OTHER_KIND.get((self.provider, self.credential_kind), self.provider)

    @property
    def host(self) -> str:
        """The host that answered."""
        return self.request.partition(" ")[2].partition("/")[0]


def rows() -> tuple[Row, ...]:
    """Return every row of the file."""
    lines = Path(__file__).with_name("replies.jsonl").read_bytes().splitlines()
    return tuple(msgspec.json.decode(line, type=Row) for line in lines)


CATALOGUE = load_catalogue()
ROWS = rows()


def body_of(row: Row) -> tuple[str, str]:
    """Return body and content type as they went over the wire: JSON that a client printed is put back together."""
    text = SDK.sub("", row.body)
    if text.lstrip().startswith("{'") or text != row.body:
        with suppress(ValueError, SyntaxError):
            return msgspec.json.encode(ast.literal_eval(text)).decode(), "application/json"
    if is_json(row.body):
        return row.body, "application/json"
    head = row.body.lstrip()[:300].lower()
    if "<html" in head or head.startswith(("<!doctype", "<div", "<center")):
        return row.body, "text/html"
    if head.startswith("<"):
        return row.body, "text/xml"
    return row.body, "application/json" if row.body_kind == "structured" else "text/plain"


def is_json(text: str) -> bool:
    """Whether `text` is one whole JSON value."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def reply_of(row: Row) -> Reply:
    """Return the row as the door would hand it over."""
    body, mime = body_of(row)
    headers = {k.lower(): v for k, v in row.headers.items()}
    if body:
        headers.setdefault("content-type", mime)
    return Reply(row.status, headers, body.encode(), row.host)


def own_endpoint(row: Row, kind: Kind) -> bool:
    """Whether the row answers the very call that the spec makes."""
    method, _, url = row.request.partition(" ")
    url = url.partition("?")[0].partition(" ")[0]
    return any(
        method == call.method and re.fullmatch(_pattern(call.host + call.path), url.rstrip("/"))
        for call in kind.manifest()
    )


def _pattern(template: str) -> str:
    return "[^/]+".join(re.escape(piece) for piece in re.split(r"\{\w+\}", template.rstrip("/")))


def _answers_in_text(kind: Kind) -> bool:
    return any(rule.type in {"text", "html", "any"} or "text/plain" in rule.mime for rule in kind.rule)


def complete(row: Row, kind: Kind) -> bool:
    """Whether the body is all that the provider sent, as far as that can be seen."""
    body, mime = body_of(row)
    if row.body_kind not in {"structured", "text"} or RENDERED.search(row.body):
        return False
    if mime == "text/plain" and (row.confidence == "documented" or not _answers_in_text(kind)):
        return False  # a sentence out of the reply, or out of a page about it
    return is_json(body) if mime == "application/json" else mime != "text/html" or "</html>" in body.lower()


def of_any_gateway(row: Row) -> bool:
    """Whether the body is one word that any gateway says: the house rules forbid to agree that such a key is dead."""
    body, _ = body_of(row)
    said = msgspec.json.decode(body) if is_json(body) else None
    words = list(said.values()) if isinstance(said, dict) else []
    return len(words) == 1 and isinstance(words[0], str) and words[0].strip(" .!").lower() in GENERIC_WORDS


def same_words(row: Row) -> Iterator[Row]:
    """Yield every row of the kind with the same status and body, the row itself too."""
    key = (row.kind, row.status, _canonical(row))
    return (r for r in ROWS if (r.kind, r.status, _canonical(r)) == key)


def _canonical(row: Row) -> str:
    body, _ = body_of(row)
    return msgspec.json.encode(msgspec.json.decode(body)).decode() if is_json(body) else body.strip()


def _other_region(host: str, ours: str) -> bool:
    """Whether two hosts differ in one label behind the first: the same service in a region that is not asked."""
    theirs, mine = host.split("."), ours.split(".")
    return theirs[0] == mine[0] and len(theirs) == len(mine) and sum(map(str.__ne__, theirs, mine)) == 1


def elsewhere(row: Row, kind: Kind) -> bool:
    """Whether the row's words mean something else at the call that the spec makes: another call decides nothing."""
    if own_endpoint(row, kind) or not row.body:
        return False
    hosts = {call.host for call in kind.manifest()}
    if row.host not in hosts and any(_other_region(row.host, host) for host in hosts):
        return True
    return any(own_endpoint(r, kind) and r.meaning != row.meaning for r in same_words(row))


COVERED = [
    (n, row)
    for n, row in enumerate(ROWS)
    if (kind := CATALOGUE.get(row.kind)) is not None and kind.rule and not elsewhere(row, kind)
]


def meanings(row: Row) -> frozenset[str]:
    """Return everything that these words are published to mean."""
    return frozenset(m for r in same_words(row) for m in (r.meaning, *r.also_means)) if row.body else {row.meaning}


def mistake(row: Row, kind: Kind, ruling: Ruling) -> str | None:
    """Return what is wrong with a ruling, `None` when it says no more than the row does.

    Where a reply is published with two meanings, Dead must be of the sort that the verifier does not confirm by itself:
    no proof of arrival where the same is said to no key, a second look a day later where outages said it to live keys.
    """
    said = meanings(row)
    undecided = {m for m in said if m.startswith("undecided")}
    match ruling.verdict:
        case "live" | "restricted":
            return None if all(m.startswith("live") for m in said) else "wrong live"
        case "dead" if not any(m.startswith("dead") for m in said):
            return "wrong dead"
        case "dead" if "undecided-incomplete" in undecided and ruling.arrival is Arrival.PROVEN:
            return "dead, although no key at all is told the same"
        case "dead" if "undecided-ambiguous" in undecided and (kind.confirm_after or 0) < DAY:
            return "dead, although live keys were told the same"
        case _:
            return None


def agrees(row: Row, ruling: Ruling) -> bool:
    """Whether the ruling is of the family that the row, or a twin of it, names."""
    family = "live" if ruling.verdict == "restricted" else ruling.verdict
    return any(m.startswith(family) for m in meanings(row))


def test_the_file_is_read_whole() -> None:
    assert len(ROWS) > 300
    assert {r.meaning.partition("-")[0] for r in ROWS} == {"live", "dead", "undecided"}
    assert len(COVERED) > 50


@pytest.mark.parametrize(("n", "row"), COVERED, ids=lambda v: v.provider if isinstance(v, Row) else str(v))
def test_a_published_reply_is_not_read_as_more_than_it_says(n: int, row: Row) -> None:
    kind = CATALOGUE.kinds[row.kind]
    ruling = Judge(kind)(reply_of(row))
    assert mistake(row, kind, ruling) is None, f"line {n + 1}: {ruling} but {row.meaning}: {row.why} ({row.source})"


def test_the_rules_agree_with_what_was_published() -> None:
    """At least 95 % of the whole replies get the published meaning. The others are printed (`pytest -rP`)."""
    asked, missed = 0, []
    for n, row in COVERED:
        kind = CATALOGUE.kinds[row.kind]
        if not complete(row, kind) or row.status >= 500:  # design rule 6: 5xx is no verdict, whatever it says
            continue
        if of_any_gateway(row) and row.meaning.startswith("dead"):
            continue
        if not own_endpoint(row, kind) and body_of(row)[1] == "text/plain":
            continue  # a client's own rendering of the reply
        asked += 1
        ruling = Judge(kind)(reply_of(row))
        if not agrees(row, ruling):
            missed.append(f"line {n + 1} {row.kind}: {row.meaning}, ruled {ruling.verdict} ({ruling.note})")
    share = 1 - len(missed) / asked
    sys.stdout.write(f"{asked - len(missed)} of {asked} published replies agreed with ({share:.1%})\n")
    sys.stdout.writelines(f"  {line}\n" for line in missed)
    assert share >= 0.95, "\n".join(missed)


@pytest.mark.parametrize("kind", [k for k in CATALOGUE if k.rule], ids=lambda k: k.id)
def test_published_noise_is_no_verdict_for_anybody(kind: Kind) -> None:
    judge = Judge(kind)
    for row in ROWS:
        if row.provider == "noise":
            ruling = judge(reply_of(row))
            assert ruling.verdict == "undecided", f"{row.request} {row.status}: {ruling} ({row.source})"


def test_a_mistake_would_be_seen() -> None:
    """The comparison itself can fail: a live row ruled dead, a dead one ruled live, a proven death of two meanings."""
    live = next(r for r in ROWS if r.meaning == "live" and r.body)
    dead = next(r for r in ROWS if r.meaning == "dead-unknown" and r.body and not r.also_means)
    both = next(r for r in ROWS if "undecided-incomplete" in r.also_means)
    kind = next(iter(CATALOGUE))
    assert mistake(live, kind, Ruling("dead", "")) == "wrong dead"
    assert mistake(dead, kind, Ruling("live", "")) == "wrong live"
    assert mistake(both, kind, Ruling("dead", "", arrival=Arrival.PROVEN))
    assert mistake(both, kind, Ruling("dead", "", arrival=Arrival.ASSUMED)) is None
    assert not agrees(live, Ruling("dead", ""))
