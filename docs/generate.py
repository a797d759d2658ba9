"""Writes what is generated under `docs/`.

A page a vendor and a page a playbook, each with an index; the configuration; the command line, as a page and as manual
pages; `json-v1`, as a page and as a schema; the list of decisions; what was measured. `make docs` runs it. Everything
comes from the specs, the types, the command tree, `config.example.toml` and the figures kept in `docs/benchmarks/`, and
is the same whenever it is made;
`tests/test_docs_current.py` fails when a file here is not what this module would write.
"""

# ruff: noqa: INP001  # scripts of a folder of pages, not a package
from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from docs_benchmarks import benchmarks
from docs_cli import reference
from docs_config import configuration
from docs_man import manual
from docs_playbooks import playbooks
from docs_providers import index, page
from docs_schema import decisions, schemas
from docs_verbs import root

from lapse.evidence.schema import schema as evidence_schema
from lapse.output.schema import schema
from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from verifier.spec import Kind

ROOT = Path(__file__).parent
_WHOLE = {"providers": "*.md", "playbooks": "*.md", "man": "*.1"}
"""Folders in which nothing but what is made here may lie."""


def pages() -> dict[str, str]:
    """Return the text of every generated file by its path under `docs/`."""
    vendors: dict[str, list[Kind]] = {}
    catalogue, verbs = load_catalogue(), root()
    for kind in catalogue:
        vendors.setdefault(kind.vendor, []).append(kind)
    made = {f"providers/{vendor}.md": page(kinds) for vendor, kinds in vendors.items()}
    made["providers/README.md"] = index(vendors)
    made |= playbooks(catalogue)
    made |= {f"man/{name}": text for name, text in manual(verbs).items()}
    made["cli.md"] = reference(verbs)
    made["configuration.md"] = configuration((ROOT.parent / "config.example.toml").read_text("utf-8"))
    form = schema()
    evidence = msgspec.json.format(msgspec.json.encode(evidence_schema()), indent=2).decode() + "\n"
    made["schemas/run-evidence-v1.schema.json"] = evidence
    made["schemas/json-v1.schema.json"] = msgspec.json.format(msgspec.json.encode(form), indent=2).decode() + "\n"
    made["schemas/README.md"] = schemas(form)
    made["decisions.md"] = decisions(ROOT / "adr")
    made["benchmarks.md"] = benchmarks(ROOT / "benchmarks")
    return made


def stale() -> list[str]:
    """Return the generated files that are missing, not as they would be written, or no longer made."""
    made = pages()
    there = {f"{folder}/{p.name}" for folder, ending in _WHOLE.items() for p in (ROOT / folder).glob(ending)}
    differ = [name for name, text in made.items() if not _is(ROOT / name, text)]
    return sorted({*differ, *(there - set(made))})


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text("utf-8") == text


def main() -> None:
    """Write what changed, remove what is no longer made."""
    made = pages()
    changed = stale()
    for name in changed:
        path = ROOT / name
        if name not in made:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[name], "utf-8")
    sys.stderr.write(f"{len(made)} files under docs/, {len(changed)} of them changed\n")


if __name__ == "__main__":
    main()
