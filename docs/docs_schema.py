"""The page of the JSON that commands print, from the schema, and the page that lists the decisions."""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MADE = "<!-- Made by docs/generate.py. Do not edit: run `make docs`. -->"
_HEAD = (
    '`--format json` and `--format jsonl` print **json-v1**: every document has `"v": 1`. Fields may be added to it; '
    "none is taken away, renamed or given another meaning while the number stands. The schema, for machines: "
    "[json-v1.schema.json](json-v1.schema.json) (JSON Schema 2020-12)."
)
_REPORTS = (
    "## Other people's formats\n\n`lapse report` also writes SARIF 2.1.0, CSV, Markdown, one self-contained HTML page, "
    "DefectDojo's generic findings and OCSF; each is held against its own schema in the tests. The generic report that "
    "anything can write and `lapse ingest` reads has one object a line:\n\n"
    "```json\n"
    '{"provider":"openai","parts":{"secret":"…"},"place":{"source":"git","repository":"acme/api","path":".env","line":3}}'
    "\n```"
)


def schemas(schema: dict[str, Any]) -> str:
    """Return the page on `json-v1`."""
    parts = [_MADE, "# JSON schemas", _HEAD]
    for name, form in schema["$defs"].items():
        if form.get("type") == "object" and form.get("properties"):
            parts += [f"## {name}", inspect.cleandoc(form.get("description", "")), "\n".join(_rows(form))]
    return "\n\n".join([*(p for p in parts if p), _REPORTS]) + "\n"


def _rows(form: dict[str, Any]) -> Iterator[str]:
    yield "| field | is |"
    yield "| --- | --- |"
    for name, field in form["properties"].items():
        yield f"| `{name}` | {_said(field)} |"


def _said(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"{name}"
    if "anyOf" in field:
        return " or ".join(_said(f) for f in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(f"`{v}`" for v in field["enum"])
    if field.get("type") == "array":
        inner = field.get("items")
        return f"list of {_said(inner)}" if isinstance(inner, dict) else "list"
    return {"null": "null", "boolean": "true or false", "integer": "whole number", "string": "text"}.get(
        field.get("type", ""), field.get("type", "anything")
    )


def decisions(folder: Path) -> str:
    """Return the page that lists the decisions by their first lines."""
    head = "What was decided that somebody will ask about, with the objection and the price."
    rows = []
    for file in sorted(folder.glob("[0-9]*.md")):
        title = file.read_text("utf-8").partition("\n")[0].removeprefix("# ")
        rows.append(f"- [{title}](adr/{file.name})")
    return "\n\n".join([_MADE, "# Decisions", head, "\n".join(rows)]) + "\n"
