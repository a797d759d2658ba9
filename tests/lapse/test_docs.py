"""The documents say what is true: commands and flags exist, recipes work, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import typer.main
from desk import Desk

from lapse import __version__
from lapse.cli import app
from lapse.exits import Exit
from lapse.output import jsonv1
from verifier.exchange import Reply
from verifier.ingest.plain import Plain
from verifier.model import Claim, Doubt
from verifier.rules import Judge
from verifier.secret import Secret
from verifier.specfile import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")}
PAGES = {**DOCS, **{str(p.relative_to(ROOT)): p.read_text() for p in ROOT.glob("docs/**/*.md")}}
CLI: Any = typer.main.get_command(app)


@cache
def flags(*words: str) -> frozenset[str]:
    """Every flag of a command."""
    command = CLI
    for word in words:
        command = command.commands[word]
    return frozenset(o for p in command.params for o in (*p.opts, *p.secondary_opts)) | {"--help", "-h"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS[page], re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `lapse …` in a console block or in backquotes, as its words."""
    for page, text in PAGES.items():
        said = [line.partition("#")[0] for line in re.findall(r"^\$ (?:\.venv/bin/)?(lapse .*)$", text, re.MULTILINE)]
        said += re.findall(r"`(lapse [^`]+)`", text.replace("\n", " "))
        for line in said:
            yield page, line.partition("|")[0].split()[1:]


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda v: " ".join(v) if isinstance(v, list) else v)
def test_every_command_in_the_documents_exists_with_its_flags(page: str, words: list[str]) -> None:
    if words[0] in {"VERB", "--help", "--version"}:
        return
    path = [words[0]]
    assert words[0] in CLI.commands, page
    if hasattr(CLI.commands[words[0]], "commands") and len(words) > 1:
        path.append(words[1].partition("|")[0])
        assert path[1] in CLI.commands[words[0]].commands, page
    for word in words[1:]:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in flags(*path), f"{page}: lapse {' '.join(words)}"


def test_the_readme_names_every_verb_and_every_exit_code() -> None:
    verbs = {name for name, c in CLI.commands.items() if not c.hidden}
    named = set(re.findall(r"`(?:lapse )?([a-z]+)", DOCS["README.md"]))
    assert verbs <= named, verbs - named
    table = DOCS["README.md"].partition("| exit code |")[2].partition("\n\n")[0]
    assert {int(n) for n in re.findall(r"\b(\d+)\b", table)} >= {int(e) for e in Exit}


def test_the_readme_names_every_doubt() -> None:
    assert [d for d in Doubt if f"`{d}`" not in DOCS["README.md"]] == []


def test_the_json_line_of_the_readme_has_fields_of_json_v1() -> None:
    (line,) = blocks("README.md", "json")
    told = json.loads(line)
    known = set(msgspec.json.schema_components([jsonv1.KeyLine])[1]["KeyLine"]["properties"])
    assert set(told) <= known, set(told) - known


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = PAGES[page]
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", re.sub(r"`[^`\n]*`", "", text)):  # code is no link
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), link
    if page in DOCS:
        for path in re.findall(r"`((?:tests|verifier|lapse|docs)/[\w./]+)`", text):
            assert "NAME" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_no_machine_path_and_no_registry_is_named(page: str) -> None:
    machine = "|".join(("/wo" + "rk/", "/ro" + "ot/[a-z]", "/ho" + "me/[a-z]"))
    registries = "|".join(("py" + r"pi\.org", "registry" + r"\.npmjs", "deb" + r"\.debian", "files\\.pythonhosted"))
    assert re.findall(rf"(?<![\w.])(?:{machine})|{registries}", PAGES[page]) == []


def test_the_provider_recipe_works() -> None:
    (text,) = blocks("CONTRIBUTING.md", "toml")
    (kind,) = parse(text.encode(), "acme", "acme.toml").kind
    judge = Judge(kind)
    assert {e.verdict for e in kind.example} == {"live", "dead", "undecided"}
    assert len(kind.example) >= 4  # as the contract test asks
    for example in kind.example:
        said = Reply(example.status, {"content-type": "application/json"}, example.body.encode(), "api.acme.example")
        assert judge(said, "s").verdict == example.verdict


def test_the_format_recipe_works(tmp_path: Path) -> None:
    (text,) = blocks("CONTRIBUTING.md", "python")
    (tmp_path / "acme_scan.py").write_text(text)
    spec = importlib.util.spec_from_file_location("acme_scan", tmp_path / "acme_scan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["acme_scan"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["acme_scan"]
    (form,) = module.FORMATS
    report = tmp_path / "r.jsonl"
    report.write_text('{"acme_rule":"key","value":"abc","file":"a.env","line":3}\n')
    assert form.sniff(report.read_bytes()) == 3
    with report.open("rb") as file:
        (claim,) = form.parse(Plain("r.jsonl", file))
    assert isinstance(claim, Claim)
    assert isinstance(claim.value, Secret)
    assert (claim.value.reveal(), claim.place.path, claim.place.line) == ("abc", "a.env", 3)


def test_the_generic_line_of_contributing_is_read(tmp_path: Path) -> None:
    (line,) = blocks("CONTRIBUTING.md", "json")
    with Desk(tmp_path) as desk:
        (tmp_path / "r.jsonl").write_text(line)
        assert desk.json("ingest", "r.jsonl", "--format", "json")["findings"] == 1


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text((ROOT / "config.example.toml").read_text())
    assert "BROKEN" not in Desk(tmp_path).run("doctor", "--config", "c.toml").stdout


def test_the_changelog_has_this_version() -> None:
    assert f"## {__version__}" in DOCS["CHANGELOG.md"]


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_make_targets_of_the_documents_exist() -> None:
    done = subprocess.run(["make", "-qp"], cwd=ROOT, text=True, capture_output=True, check=False)
    for page, text in PAGES.items():
        for target in re.findall(r"`make ([a-z]+)`|^\$ make ([a-z]+)", text, re.MULTILINE):
            assert re.search(rf"^{target[0] or target[1]}:", done.stdout, re.MULTILINE), f"{page}: make {target}"
