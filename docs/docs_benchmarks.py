"""The page of measured figures, made from what `docs/benchmarks_keep.py` kept."""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_TOP = """# Benchmarks

What Lapse was measured to do, and where it falls short. Each benchmark is one command, takes `--scale` to be made
smaller or larger, and prints one JSON object. This page is generated from the results kept in `docs/benchmarks/`:

```text
python docs/benchmarks_keep.py race --rounds 5     # run one, keep its figures with machine, date and commit
python docs/generate.py                            # write this page
```

A figure marked *shared machine* was taken while other work ran on the same cores: compare within it, not with others.
"""
_PEERS = {
    "lapse": "**Lapse**",
    "kingfisher": "Kingfisher",
    "kingfisher_sdk": "Kingfisher's SDK",
    "betterleaks": "Betterleaks",
}
_PARTS = {
    "start": "Python and imports",
    "specs": "loading the providers' specs",
    "ingest": "report to sealed ledger",
    "ask": "asking: unseal, build, call, rules, redaction",
    "record": "verdicts into the hash-chained ledger",
    "tell": "reading back and printing a line a key",
    "rest": "everything else",
}


def benchmarks(folder: Path) -> str:
    """Return the page of everything that was kept in `folder`."""
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    text = [_TOP]
    for name, (title, draw) in _PAGES.items():
        text.append(f"## {title}\n")
        if name not in kept:
            text.append(f"Not measured yet: `python benchmarks/{name}.py`.\n")
            continue
        text += [_stamp(kept[name]), *draw(kept[name]["result"])]
    return "\n".join(text)


def _stamp(kept: dict[str, Any]) -> str:
    m = kept["machine"]
    told = f"{m['cpu']}, {m['cpus']} cores, {m['memory_gib']} GiB, Python {m['python']}"
    shared = f" *Shared machine*, load {kept['load_before']} before." if kept["shared"] else ""
    return f"`{kept['command']}`\n{kept['date']}, commit {kept['commit']}, {told}.{shared}\n"


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [list(heads), *([_cell(c) for c in row] for row in rows)]
    shown = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([shown[0], "|" + " --- |" * len(lines[0]), *shown[1:], ""])


def _cell(value: object) -> str:
    match value:
        case float():
            return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"  # three digits are enough
        case int():
            return f"{value:,}"
        case None:
            return ""
        case _:
            return str(value)


def _race(r: dict[str, Any]) -> list[str]:
    rows, short = [], []
    for ms, tools in r["by_latency_ms"].items():
        peers = {n: t for n, t in tools.items() if isinstance(t, dict)}
        rivals = {n: t for n, t in peers.items() if n != "lapse"}
        for name, t in peers.items():
            by = [t["keys_a_second"], t["cpu_microseconds_a_key"], t["peak_rss_mib"]]
            rows.append([f"{ms} ms", _PEERS.get(name, name), *by, tools["ratio"] if name == "lapse" else None])
        if rivals:
            fastest = max(rivals.values(), key=lambda t: t["keys_a_second"])
            cpu = peers["lapse"]["cpu_microseconds_a_key"] / fastest["cpu_microseconds_a_key"]
            short.append((ms, tools["ratio"], cpu))
    told = [
        (
            f"The same {r['keys']:,} keys, the same provider on this machine, medians of "
            f"{r['rounds']} interleaved rounds. "
            "Lapse is timed as a whole process: reading the report, asking, redacted evidence, a "
            "hash-chained ledger on "
            "disk, a line a key. The SDK only asks, and stores nothing.\n"
        ),
        _table(
            ["answer after", "tool", "keys a second", "CPU µs a key", "peak MiB", "ratio to the fastest peer"], rows
        ),
        "The target is a ratio of 1.3 at every latency, and no more CPU a key than the fastest peer.\n",
    ]
    said = [f"{ms} ms: {ratio:.2f} times the fastest peer, {cpu:.1f} times its CPU a key" for ms, ratio, cpu in short]
    missed = any(ratio < 1.3 or cpu > 1 for _, ratio, cpu in short)  # the target
    if missed:
        said.append("the target is missed; the next table says what the CPU goes into")
    return [*told, *(f"- {one}" for one in said), ""]


def _parts(r: dict[str, Any]) -> list[str]:
    parts = r["parts_us_a_key"]
    whole = r["cpu_us_a_key"]
    rows = [[_PARTS.get(name, name), us, f"{us / whole:.0%}"] for name, us in parts.items()]
    intro = (
        f"`lapse verify` of {r['keys']:,} keys, answers after {r['latency_ms']} ms: {whole:,} µs of "
        "CPU a key in all. It "
        "is Python in one process, so the keys a second are what this sum leaves. Within asking no step dominates: the "
        "system calls of a request are the largest, then many small steps of the key's own.\n"
    )
    return [intro, _table(["part", "µs a key", "share"], rows)]


def _plain(r: dict[str, Any]) -> list[str]:
    """Show every single figure, nested ones by `outer: inner`."""
    return [_table(["figure", "value"], _flat(r))]


def _flat(r: dict[str, Any], before: str = "") -> list[list[object]]:
    rows: list[list[object]] = []
    for name, value in r.items():
        label = f"{before}{name.replace('_', ' ')}"
        match value:
            case dict():
                rows += _flat(value, f"{label}: ")
            case list():
                rows.append([label, ", ".join(map(_cell, value))])
            case _ if name != "benchmark":
                rows.append([label, value])
            case _:
                pass
    return rows


def _scale(r: dict[str, Any]) -> list[str]:
    heads = ["keys a second", "CPU µs a key", "of it the leader's", "peak MiB", "bytes on disk a key"]
    names = ["keys_a_second", "cpu_us_a_key", "leader_cpu_us_a_key", "peak_mib", "disk_bytes_a_key"]
    workers = [[n, t["keys"], t["speedup"], *(t[x] for x in names)] for n, t in r["by_workers"].items()]
    sizes = [[t["keys"], t["wall_s"], *(t[x] for x in names)] for t in r["by_keys"]]
    p = r["on_paper"]
    return [
        (
            f"A night of a fleet on PostgreSQL, {r['vendors']} vendors, answers after {r['latency_ms']} ms. Workers, "
            f"database and provider share {r['cpus']} cores: a speed-up ends where these do.\n"
        ),
        _table(["workers", "keys", "speed-up", *heads], workers),
        "One worker, ever more keys:\n",
        _table(["keys", "seconds", *heads], sizes),
        f"CPU a key of the largest run is {r['growth']} times that of the smallest.\n",
        (
            f"On paper, from what one more key took ({p['cpu_us_each_more_key']:,} µs): a night of "
            "100 million keys takes "
            f"{p['core_hours']:,} core hours, which is {p['cores_for_eight_hours']} cores for eight hours, and "
            f"{p['disk_gib']:,} GiB of database. One ledger, as fast as it went here, would take "
            f"{p['hours_at_this_rate_of_one_ledger']} hours: so many keys belong into several "
            "ledgers, one a part of the "
            f"house. The providers must be willing, too: {p['requests_a_second_for_eight_hours']:,} requests a second, "
            "where a spec's own limit is 5 to 50.\n"
        ),
    ]


def _nightly(r: dict[str, Any]) -> list[str]:
    return [
        (
            f"{r['keys']:,} keys at {r['vendors']} vendors that let {r['rate']:g} requests a second "
            "through each. No night "
            f"can be shorter than the limits allow, {r['floor_s']:,} s; the target is 1.1 times that.\n"
        ),
        _table(
            ["whole night, s", "ratio", "asking alone, s", "ratio", "CPU µs a key", "peak MB"],
            [[r["wall_s"], r["ratio"], r["asking_s"], r["asking_ratio"], r["cpu_us_a_key"], r["peak_mb"]]],
        ),
    ]


def _report(r: dict[str, Any]) -> list[str]:
    forms = r["forms"]
    names = ["wall_s", "cpu_s", "peak_mib", "file_mib"]
    told = [f"`lapse report` of {r['findings']:,} findings, each of a key of its own.\n"]
    told.append(
        _table(["form", "s", "CPU s", "peak MiB", "file MiB"], [[f, *(t[n] for n in names)] for f, t in forms.items()])
    )
    if "chromium_s" in forms["html"]:
        told.append(f"Chromium, started anew, shows the HTML file after {forms['html']['chromium_s']} s.\n")
    return told


_PAGES: dict[str, tuple[str, Callable[[dict[str, Any]], list[str]]]] = {
    "race": ("Against peers", _race),
    "parts": ("Where the CPU goes", _parts),
    "scale": ("A fleet, and ever more keys", _scale),
    "nightly": ("A night against the providers' own limits", _nightly),
    "nightly_large": ("A night of a million keys", _nightly),
    "corpus": ("A model of the Docker Hub study", _plain),
    "ingest": ("Reading a report", _plain),
    "ingest_large": ("Reading a report of ten million findings", _plain),
    "ledger": ("The ledger at size", _plain),
    "console": ("The console at size", _plain),
    "report": ("A report of a large ledger", _report),
    "classify": ("Telling what a key is", _plain),
}
