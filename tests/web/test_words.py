"""One key, two keys: counts and their nouns agree, on pages and in the terminal, by one helper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lapse.output.console import Progress
from verifier.words import plural

ROOT = Path(__file__).parents[2]
NOUNS = (
    "approvals|chunks|days|events|facts|files|findings|keys|kinds|mistakes|places|problems|refusals|rotations|rows|rules|"
    "runs|times|tokens|vendors"
)
BARE = re.compile(rf"\{{(?P<count>[^{{}}]*)\}}\}}? (?:[a-z]+ )?(?:{NOUNS})\b")
RIGHT = re.compile(r":,?\.\df$|unmarked|len\((rules|checked)\)|^(number|kind)$")  # decimals; never one; no counts


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 keys"), (1, "1 key"), (2, "2 keys"), (1_000_000, "1,000,000 keys")]
)
def test_a_count_and_its_noun_agree(number: int, said: str) -> None:
    assert plural(number, "key") == said


@pytest.mark.parametrize(("total", "said"), [(1, "0/1 key,"), (2, "0/2 keys,"), (None, "0 keys,")])
def test_the_line_of_progress_agrees(total: int | None, said: str) -> None:
    assert Progress(total, quiet=True).line(0.0).startswith(said)


def test_no_count_stands_beside_a_bare_plural() -> None:
    found = []
    for folder, ending in (("lapse", "py"), ("playbooks", "py"), ("lapse/web/templates", "html")):
        for file in (ROOT / folder).rglob(f"*.{ending}"):
            for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
                found += [
                    f"{file.relative_to(ROOT)}:{number}: {m[0]}"
                    for m in BARE.finditer(line)
                    if not RIGHT.search(m["count"].strip())
                ]
    assert found == []
