"""What is generated under `docs/` is what would be generated now: `make docs` mends a failure here."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generate() -> Iterator[Any]:
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("generate")
    finally:
        sys.path.remove(str(DOCS))


def test_nothing_generated_is_stale(generate: Any) -> None:
    assert generate.stale() == [], "run `make docs` and commit what it writes"


def test_a_changed_missing_or_forgotten_page_is_seen(
    generate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs" / "providers").mkdir(parents=True)
    (tmp_path / "config.example.toml").write_text("# nothing\n")
    monkeypatch.setattr(generate, "ROOT", tmp_path / "docs")
    everything = generate.stale()
    assert len(everything) == len(generate.pages())
    generate.main()
    assert generate.stale() == []
    (tmp_path / "docs" / "providers" / "stripe.md").write_text("old")
    (tmp_path / "docs" / "providers" / "gone.md").write_text("of a provider that is no more")
    assert generate.stale() == ["providers/gone.md", "providers/stripe.md"]
    generate.main()
    assert not (tmp_path / "docs" / "providers" / "gone.md").exists()


def test_every_kind_has_its_place_and_every_death_its_words(generate: Any) -> None:
    made = generate.pages()
    for kind in load_catalogue():
        text = made[f"providers/{kind.vendor}.md"]
        assert f'<a id="{kind.id}"></a>' in text
        assert f"({kind.vendor}.md#{kind.id})" in made["providers/README.md"]
        assert kind.probe != "none" or kind.reason in text
    assert "**dead**: revoked" in made["providers/sendgrid.md"]


def test_tables_are_whole(generate: Any) -> None:
    for name, text in generate.pages().items():
        if not name.startswith("providers/"):
            continue
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            counts = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in block.splitlines()}
            assert len(counts) == 1, f"{name}: {block[:200]}"
