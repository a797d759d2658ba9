"""A page a shipped playbook: what `lapse rotate` would print of it, from the same compiler, for its first kind.

Issuers, stores and session killers are made without their settings: they say of themselves what they can, and nobody
is asked.
"""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar

from playbooks.plan import Facts, HandFacts, IssuerFacts, Mode, Plan, Used, plan
from playbooks.schema import OPEN, Need
from playbooks.specfile import library
from playbooks.world import CONSUMERS, ISSUERS, SESSIONS, STORES, SUCCESSORS, Unready
from rotators.interface import Quarantine, SelfRevoker, Style
from rotators.step import Effect
from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from playbooks.plan import Planned
    from playbooks.schema import Playbook
    from playbooks.world import Family
    from rotators.interface import Issuer, SessionKiller
    from verifier.catalogue import Catalogue

T = TypeVar("T")
_MADE = "<!-- Made by docs/generate.py from the playbook. Do not edit: run `make docs`. -->"
_TRIALS = {
    "role": "app", "database": "postgresql", "prefix": "lapse", "engine": "database", "connection": "app",
    "audience": "app", "claims": "repository=acme/app", "grants": "read secret/data/app",
}  # fmt: skip
"""What stands for an open setting where a hand cannot be made without one; it is printed nowhere."""

_STYLES = {
    Style.DISPLACE: "A new key is made beside the old one; both work until the old one is disabled.",
    Style.REPLACE: "The old key dies in the moment in which the new one is set.",
    Style.REVOKE: "The issuer can only end the key, not make another.",
}
_INDEX = (
    "A playbook says how one sort of key is replaced: who makes the new one, where it is kept, who is given it, how "
    "the old one goes, and what proves it dead. `lapse playbooks` lists them, `lapse rotate KEY` prints the plan that "
    "one makes for a key. A step *reads*, *adds*, *changes* (can be taken back) or *destroys* (cannot). Your own "
    "are files of the same form, in a folder that `[rotate] playbooks` names; `lapse playbooks lint FILE` finds their "
    "mistakes."
)


def playbooks(catalogue: Catalogue) -> dict[str, str]:
    """Return the text of every page by its path under `docs/`."""
    books = library()
    made = {f"playbooks/{book.id}.md": _page(book, catalogue) for book in books.values()}
    made["playbooks/README.md"] = _index(books.values(), catalogue)
    return made


def _index(books: Iterable[Playbook], catalogue: Catalogue) -> str:
    rows = []
    for book in sorted(books, key=lambda b: b.id):
        makes = "a person" if book.create and book.create.by == "person" else f"`{book.issuer}`" if book.create else ""
        rows.append(f"| [{book.title}]({book.id}.md) | `{book.id}` | {_kinds(book, catalogue)} | {makes or 'nobody'} |")
    table = "\n".join(["| playbook | id | for | who makes the new key |", "| --- | --- | --- | --- |", *rows])
    return f"{_MADE}\n\n# Playbooks\n\n{_INDEX}\n\n{table}\n"


def _page(book: Playbook, catalogue: Catalogue) -> str:
    raw = (files("playbooks") / "library" / f"{book.id}.toml").read_text("utf-8")
    intro = " ".join(line.removeprefix("#").strip() for line in raw.splitlines() if line.startswith("#"))
    graceful, urgent = _plan(book, Mode.GRACEFUL), _plan(book, Mode.EMERGENCY)
    parts = [
        _MADE, f"# {book.title}", intro, _who(book, graceful, catalogue),
        "## The steps", "\n\n".join(_steps(graceful)),
    ]  # fmt: skip
    if [s.name for s in urgent.steps] != [s.name for s in graceful.steps]:
        said = "With `--mode emergency` the old key is stopped first, and nothing waits:"
        order = "\n".join(f"{i}. **{s.name}**, {s.effect}: {s.title}." for i, s in enumerate(urgent.steps, 1))
        parts += ["### In an emergency", said, order]
    parts += ["## Who must agree", _approvals(book, graceful)]
    if dies := list(_consequences(book)):
        parts += ["## What else dies", "\n".join(dies)]
    if book.replace is not None:
        more = f" ([how]({book.replace.docs}))" if book.replace.docs else ""
        parts += ["## What would make this key unnecessary", f"{_first_up(book.replace.suggest)}{more}."]
    parts += ["## The file", f"```toml\n{raw.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _who(book: Playbook, made: Plan, catalogue: Catalogue) -> str:
    rows = [("id", f"`{book.id}`"), ("for", _kinds(book, catalogue))]
    rows.append(("issuer", f"`{book.issuer}`" if book.issuer else "none: a person does it"))
    if book.store is not None:
        rows.append(("store", f"`{book.store.use}`, fields {', '.join(f'`{n}`' for n in book.store.write)}"))
    if book.consumers:
        rows.append(("consumers", ", ".join(f"`{c.use}`" for c in book.consumers)))
    if book.sessions:
        rows.append(("ends sessions by", ", ".join(f"`{s.use}`" for s in book.sessions)))
    if made.successor is not None:
        rows.append(("replaced by", f"`{made.successor.name}`; chosen by name only: `--playbook {book.id}`"))
    elif made.style is not None:
        rows.append(("manner", _STYLES[made.style]))
    if made.also_dies:
        rows.append(("what else dies", made.also_dies))
    if asked := made.open_settings():
        rows.append(("you say", ", ".join(f"`--set {name}=…`" for name in asked) + " or `[rotate.set]`"))
    return "\n".join(["| | this playbook |", "| --- | --- |", *(f"| {name} | {_cell(text)} |" for name, text in rows)])


def _steps(made: Plan) -> Iterator[str]:
    lines = ["| step | effect | does | way back | approval |", "| --- | --- | --- | --- | --- |"]
    for step in made.steps:
        back = step.undo or ("**none**" if step.effect is Effect.DESTROYS else "")
        lines.append(f"| `{step.name}` | {step.effect} | {_cell(step.title)} | {_cell(back)} | {_people(step)} |")
    yield "\n".join(lines)
    rights = dict.fromkeys(right for step in made.steps for right in step.permissions)
    if rights:
        yield "Rights that our own log-ins need:"
        wanted: dict[tuple[str, ...], list[str]] = {}
        for right in rights:
            wanted.setdefault(tuple(s.name for s in made.steps if right in s.permissions), []).append(f"`{right}`")
        yield "\n".join(f"- {_code_list(steps)}: {', '.join(held)}" for steps, held in wanted.items())


def _code_list(names: Iterable[str]) -> str:
    return ", ".join(f"`{n}`" for n in names)


def _people(step: Planned) -> str:
    return {0: "", 1: "one person"}.get(step.approvals, f"{step.approvals} people")


def _approvals(book: Playbook, made: Plan) -> str:
    steps = [f"`{s.name}`" for s in made.steps if s.approvals]
    if not steps:
        return "Nobody: no step changes anything that could not be taken back."
    two = book.approvals.destroys is Need.TWO
    people = "two people other than whoever started it" if two else "one person, by name"
    return (
        f"{', '.join(steps)}: {people}; an approval holds for {book.approvals.expire}. "
        "A playbook of yours can ask for more in `[approvals]`, never for less."
    )


def _plan(book: Playbook, mode: Mode) -> Plan:
    nobody = HandFacts({})
    bare = Facts(
        CredentialID("x-" + "0" * 32), "KEY", KindID(book.kinds[0]), {}, None, None, nobody,
        tuple(nobody for _ in book.consumers), tuple(nobody for _ in book.sessions),
    )  # fmt: skip
    shape = plan(book, mode, bare)
    issuer: Issuer | None = _made(ISSUERS, shape.issuer) if shape.issuer else None
    store = _made(STORES, shape.store) if shape.store else None
    killers: list[SessionKiller] = [_made(SESSIONS, s) for s in shape.sessions]
    dies = "" if issuer is None or isinstance(issuer, SelfRevoker) else issuer.also_dies
    facts = Facts(
        bare.credential, bare.short, bare.kind, {}, None,
        None if issuer is None else IssuerFacts(
            issuer.style, issuer.reversible, issuer.propagation.total_seconds(), issuer.permissions, dies
        ),
        HandFacts(store.permissions) if store else None,
        tuple(HandFacts(_made(CONSUMERS, c).permissions) for c in shape.consumers),
        tuple(HandFacts(k.permissions, k.reversible, isinstance(k, Quarantine) and k.stops_new) for k in killers),
        None if shape.successor is None else _successor(shape.successor),
    )  # fmt: skip
    return plan(book, mode, facts)


def _successor(used: Used) -> HandFacts:
    """Ask a successor what it says of itself; whose key it is nobody knows here, so the leaked user is its own."""
    way = _made(SUCCESSORS, used)
    nobody = Credential(CredentialID("x-" + "0" * 32), KindID("x"), {"username": Secret("app")})
    return HandFacts(way.permissions, way.reversible, displaces=way.displaces(nobody), about=f"`{used.name}`")


def _consequences(book: Playbook) -> Iterator[str]:
    """Yield what one revoker says of each kind; it is another for each provider."""
    if book.issuer is None or not isinstance(
        revoker := _made(ISSUERS, Used(book.issuer, book.issuer_settings)), SelfRevoker
    ):
        return
    for name in book.kinds:
        if name in revoker.kinds:
            said = revoker.consequence(Credential(CredentialID("x-" + "0" * 32), KindID(name), {}))
            yield f"- `{name}`: {said}"


def _made(family: Family[T], used: Used) -> T:
    """Make a hand with as few settings as it lets itself be made with."""
    none: frozenset[str] = frozenset()
    closed = {n: v for n, v in used.settings.items() if v != OPEN and "{" not in v}
    try:
        return family.make(type(used)(used.name, closed), none, str)
    except Unready:
        tried = {n: _TRIALS.get(n, "x") for n in used.settings}
        return family.make(type(used)(used.name, tried), none, str)


def _kinds(book: Playbook, catalogue: Catalogue) -> str:
    said = []
    for name in book.kinds:
        kind = catalogue.get(KindID(name))
        said.append(f"[`{name}`](../providers/{kind.vendor}.md#{name})" if kind else "any kind, when named")
    return ", ".join(said)


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
