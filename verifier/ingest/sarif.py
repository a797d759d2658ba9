"""SARIF 2.1.0 as secret scanners write it: the result's rule, place and snippet, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from verifier.ingest.stream import json_items

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verifier.ingest.interface import Row, Source
    from verifier.ingest.stream import Notes
    from verifier.model import Skipped


class Text(Struct, frozen=True):
    """A message or a snippet."""

    text: str = ""


class Region(Struct, frozen=True, rename="camel"):
    """Where in the file; lines and columns from 1."""

    start_line: int | None = None
    start_column: int | None = None
    snippet: Text | None = None


class Artifact(Struct, frozen=True):
    """Which file."""

    uri: str = ""


class Physical(Struct, frozen=True, rename="camel"):
    """File and region."""

    artifact_location: Artifact = Artifact()
    region: Region = Region()


class Extra(Struct, frozen=True):
    """Kingfisher's property bag of a location."""

    validation_outcome: str | None = None
    validation_status: str | None = None
    validate_command: str | None = None
    git_metadata: Raw = Raw()


class Location(Struct, frozen=True, rename="camel"):
    """One place of a result."""

    physical_location: Physical = Physical()
    properties: Extra = Extra()


class Prints(Struct, frozen=True, rename="camel"):
    """Where gitleaks and its kin keep the commit."""

    commit_sha: str = ""
    author: str = ""
    email: str = ""
    date: str = ""


class Result(Struct, frozen=True, rename="camel"):
    """One result; a scanner's own format knows which of the fields hold something."""

    rule_id: str
    locations: tuple[Location, ...] = ()
    message: Text = Text()
    partial_fingerprints: Prints = Prints()


def results(source: Source, notes: Notes | None = None) -> Iterator[Row[Result] | Skipped]:
    """Yield the results of all runs; `notes` as in `stream.json_items`."""
    return json_items(source, Result, "runs", "*", "results", "*", notes=notes)
