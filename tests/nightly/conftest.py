"""Fixtures of the nightly tests: a folder with a config, and the SaaS simulator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from night import Folder  # beside this file

from lapse.sandbox.saas import Saas, playing
from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ("sendgrid", "digitalocean")


@pytest.fixture
def saas() -> Iterator[Saas]:
    with playing(Saas(load_catalogue())) as saas:
        yield saas


@pytest.fixture
def folder(tmp_path: Path, saas: Saas, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, saas, KINDS, monkeypatch)
