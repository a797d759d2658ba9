"""A vendor's page, and the index of all: what is called, what proves what, how gently, whom to see about a key."""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from verifier.spec import Probe, many

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from verifier.spec import IdentitySpec, Kind, Rule

_WHO = ("principal", "account", "organisation", "scopes", "expires", "plan")
_MADE = "<!-- Made by docs/generate.py from the provider's file. Do not edit: run `make docs`. -->"

_COMMANDS = (
    "`lapse providers --calls` prints every call with its address; `lapse providers --coverage SCANNER` the share of a "
    "scanner's rules that is verified."
)
_CONFIDENCE = (
    "**Confidence** is that of the rules: *documented* by the vendor, *observed* in replies that somebody published "
    "(the page links to them), *unconfirmed*. An unconfirmed rule never says dead."
)


def page(kinds: Sequence[Kind]) -> str:
    """Return the page of one vendor's kinds."""
    name = kinds[0].vendor
    parts = [_MADE, f"# {name}"]
    for kind in kinds:
        parts += _kind(kind)
    return "\n\n".join(parts) + "\n"


def index(vendors: Mapping[str, Sequence[Kind]]) -> str:
    """Return the table of all kinds."""
    kinds = [k for v in sorted(vendors) for k in vendors[v]]
    able = sum(k.probe != "none" for k in kinds)
    deadly = sum(any(r.verdict == "dead" for r in k.rule) for k in kinds)
    rows = [
        (
            f"[{_cell(k.title)}]({k.vendor}.md#{k.id})",
            f"`{k.id}`",
            k.category,
            "left alone" if k.probe == "none" else _calls_in_short(k),
            _verdicts(k),
            _confidence(k),
        )
        for k in kinds
    ]
    count = (
        f"{len(kinds)} kinds of key of {len(vendors)} vendors. {able} are verified; for {deadly} of them the vendor's "
        "own words for a dead key are known, the others can be live or undecided only. What cannot be verified safely "
        "is listed with the reason on its page."
    )
    head = ("key", "kind", "category", "asked by", "can say", "confidence of its rules")
    return "\n\n".join((_MADE, "# Providers", count, _COMMANDS, _CONFIDENCE, _table(head, rows))) + "\n"


def _kind(kind: Kind) -> Iterator[str]:
    yield f'<a id="{kind.id}"></a>\n\n## {kind.title}'
    links = [f"[documentation]({kind.docs})"] + (
        [f"[where its owner manages it]({kind.console})"] if kind.console else []
    )
    yield f"`{kind.id}` · {kind.category} · " + " · ".join(links)
    needs = ", ".join(f"`{p}`" for p in kind.parts)
    more = f"; may help: {', '.join(f'`{p}`' for p in kind.optional)}" if kind.optional else ""
    yield f"Needs {needs}{more}."
    if kind.shape:
        yield "Looks like:\n\n" + "\n".join(
            f"- `{s.part}`: `{s.pattern}`" + ("" if s.context == "alone" else " (only where a scanner's rule says so)")
            for s in kind.shape
        )
    if kind.probe == "none":
        yield f"**Left alone:** {kind.reason}."
        return
    yield "### What is called"
    calls = [
        (c.method, f"`{c.scheme}://{c.host}{c.path}`", f"{_cell(c.reads)} ([source]({c.docs}))")
        for c in kind.manifest()
    ]
    yield (
        _table(("method", "address", "why it only reads"), calls)
        if calls
        else "Nothing, unless the [configuration](../configuration.md) names hosts where it may be called."
    )
    if isinstance(kind.probe, Probe):
        yield f"The key travels in {_carrier(kind.probe.carrier)}."
    yield "### What proves what"
    if kind.rule:
        yield "The first line that fits decides; what fits none is undecided."
        yield _table(("verdict", "reply", "meaning", "confidence"), [_rule(r) for r in kind.rule])
    else:
        yield f"No reply is a verdict: {kind.reason}."
    if known := _identity(kind.identity):
        yield f"A live reply also tells: {known}."
    limits = kind.limits
    yield (
        f"Asked at most {limits.rate:g} times a second, {limits.burst} at once, {limits.concurrency} under way."
        + (
            f" A death is confirmed {kind.confirm_after / 3600:g} hours later at the earliest."
            if kind.confirm_after
            else ""
        )
        + (" The token ends by its own date, which is read before anything is asked." if kind.jwt else "")
    )


def _rule(rule: Rule) -> tuple[str, str, str, str]:
    said = f"**{rule.verdict}**" + (f": {rule.how}" if rule.how else f": {rule.why}" if rule.why else "")
    if rule.verdict == "restricted":
        said = "**live**, restricted"
    source = f"[{rule.confidence}]({rule.source})" if rule.source.startswith("https://") else str(rule.confidence)
    return said, _condition(rule), _cell(rule.note), source


def _condition(rule: Rule) -> str:
    words = [] if rule.statuses() == (0,) else ["/".join(map(str, rule.statuses()))]
    if rule.type != "json":
        words.append({"any": "any body", "empty": "no body"}.get(rule.type, f"a page of {rule.type}"))
    words += [f"`{p}` is {_either(v)}" for p, v in rule.json.items()]
    words += [f"`{p}` says {_either(v)}" for p, v in rule.words.items()]
    words += [f"has `{p}`" for p in rule.has]
    words += [f"lacks `{p}`" for p in rule.lacks]
    words += [f"nothing but {', '.join(f'`{k}`' for k in rule.only)}"] if rule.only else []
    words += [f"says {_either(rule.text)}"] if rule.text else []
    words += [f"is {_either(rule.exact)}"] if rule.exact else []
    words += [f"header `{h}` says {_either(v)}" for h, v in rule.header.items()]
    return "; ".join(words)


def _either(value: object) -> str:
    return " or ".join(f"`{_code(str(v))}`" for v in many(value))


def _code(text: str) -> str:
    return _cell(text).replace("`", "'")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _identity(spec: IdentitySpec) -> str:
    told = [name for name in _WHO if getattr(spec, name)]
    return ", ".join([*told, *(["privilege"] if spec.privilege else [])])


def _carrier(carrier: str) -> str:
    return {"url": "the address (the vendor allows nothing else)", "body": "the body"}.get(
        carrier, f"the header `{carrier}`"
    )


def _calls_in_short(kind: Kind) -> str:
    methods = sorted({c.method for c in kind.manifest()})
    hosts = sorted({c.host for c in kind.manifest()})
    if not hosts:
        return "hosts of the config"
    first = f"`{hosts[0]}`" + (f" and {len(hosts) - 1} more" if len(hosts) > 1 else "")
    return f"{'/'.join(methods)} {first}"


def _verdicts(kind: Kind) -> str:
    told = {"live" if r.verdict == "restricted" else r.verdict for r in kind.rule if r.verdict != "undecided"}
    return ", ".join(v for v in ("live", "dead") if v in told)


def _confidence(kind: Kind) -> str:
    counted = Counter(str(r.confidence) for r in kind.rule if r.verdict != "undecided")
    return ", ".join(f"{counted[c]} {c}" for c in ("documented", "observed", "unconfirmed") if counted[c])
