"""SARIF 2.1.0: the structure that its schema asks of what we write, and what the levels mean.

Two referees: `Official`, classes that a package of others generated from OASIS' schema, which refuse what it does not
know; and `STRUCTURE`, our own reading of the standard (sections 3.13 to 3.49) for the properties we write, with ranges
and formats that classes do not keep. Anything we do not write is refused, so that a new property is looked up first.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from desk import Desk, row, sendgrid, simulator
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Official

from lapse.output.jsonv1 import KeyReport, PlaceOut
from lapse.output.sarif import sarif

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


TEXT: dict[str, Any] = {"type": "string"}
MESSAGE = _object(["text"], text=TEXT)
RULE = _object(["id"], id=TEXT, name=TEXT, shortDescription=MESSAGE, help=MESSAGE)
DRIVER = _object(
    ["name"],
    name=TEXT,
    version=TEXT,
    semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
    rules={"type": "array", "items": RULE, "uniqueItems": True},
)
LOCATION = _object(
    [],
    physicalLocation=_object(
        ["artifactLocation"],
        artifactLocation=_object(["uri"], uri={"type": "string", "pattern": r"^[!-~]+$"}),
        region=_object(["startLine"], startLine={"type": "integer", "minimum": 1}),
    ),
    logicalLocations={"type": "array", "items": _object([], fullyQualifiedName=TEXT, kind=TEXT), "minItems": 1},
)
RESULT = _object(
    ["message"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level={"enum": ["none", "note", "warning", "error"]},
    kind={"enum": ["fail"]},
    message=MESSAGE,
    fingerprints={"type": "object", "additionalProperties": TEXT},
    properties={"type": "object"},
    locations={"type": "array", "items": LOCATION, "minItems": 1},
)
RUN = _object(
    ["tool"],
    tool=_object(["driver"], driver=DRIVER),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results={"type": "array", "items": RESULT},
)
STRUCTURE = _object(
    ["version", "runs"],
    **{"$schema": TEXT, "version": {"const": "2.1.0"}, "runs": {"type": "array", "items": RUN, "minItems": 1}},
)


def judged(document: dict[str, Any]) -> None:
    jsonschema.validate(document, STRUCTURE)
    Official.model_validate(document)


def log(*keys: KeyReport) -> dict[str, Any]:
    document: dict[str, Any] = json.loads("".join(sarif(keys)))
    judged(document)
    run: dict[str, Any] = document["runs"][0]
    return run


def key(**known: Any) -> KeyReport:
    fields: dict[str, Any] = {
        "key": "acme-1", "provider": "acme", "verdict": "live", "why": None, "how": None, "confirmed": False,
        "restricted": False, "identity": None, "evidence": None, "findings": 1, "first_seen": NOW,
        "removed_from_source": False, "id": "acme-" + "1" * 32,
    }  # fmt: skip
    return KeyReport(**fields | known)


def test_an_empty_log_is_one() -> None:
    assert log()["results"] == []


@pytest.mark.parametrize(
    ("known", "level", "words"),
    [
        ({"verdict": "live", "known": "live"}, "error", "still works"),
        ({"verdict": "live", "known": "live", "restricted": True}, "error", "still works"),
        ({"verdict": "undecided", "why": "throttled", "known": "live"}, "error", "could not be judged (throttled)"),
        ({"verdict": "undecided", "why": "blocked"}, "warning", "could not be judged"),
        ({"verdict": "dead", "known": "dead", "how": "revoked"}, "warning", "not proven dead"),
        ({"verdict": "dead", "known": "dead", "how": "revoked", "confirmed": True}, "note", "is dead (revoked)"),
    ],
)
def test_levels(known: dict[str, Any], level: str, words: str) -> None:
    (result,) = log(key(**known))["results"]
    assert result["level"] == level
    assert words in result["message"]["text"]


def test_each_result_points_at_its_rule() -> None:
    run = log(*(key(provider=p, id=f"{p}-{n}") for n, p in enumerate("abcab")))
    rules = [r["id"] for r in run["tool"]["driver"]["rules"]]
    assert rules == ["a", "b", "c"]
    assert [rules[r["ruleIndex"]] for r in run["results"]] == [r["ruleId"] for r in run["results"]] == list("abcab")


@pytest.mark.parametrize(
    "path", ["a b.env", "ä/ö.env", 'a"b\\c\n.env', "C:\\x\\y", "//srv/x", "%41.env", "\udc80.env", "a#b?c", "\x1b[31m"]
)
def test_every_path_is_a_uri(path: str) -> None:
    (result,) = log(key(places=(PlaceOut("git", path=path, line=3),)))["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["region"] == {"startLine": 3}


@pytest.mark.parametrize("line", [None, 0, -1])
def test_a_line_that_is_none_makes_no_region(line: int | None) -> None:
    (result,) = log(key(places=(PlaceOut("docker", image="acme/api:1", path="x", line=line),)))["results"]
    assert "region" not in result["locations"][0]["physicalLocation"]
    assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "docker:acme/api:1"


def test_a_log_is_written_as_it_comes() -> None:
    """Nothing is read ahead: a million keys cost no memory."""
    taken: list[int] = []

    def keys() -> Iterator[KeyReport]:
        for n in range(100):
            taken.append(n)
            yield key(id=f"acme-{n}")

    pieces = sarif(keys())
    next(pieces)
    for n in range(100):
        assert len(taken) == n
        next(pieces)


def test_by_the_command_line(tmp_path: Path) -> None:
    with simulator() as saas, Desk(tmp_path, saas, ["sendgrid"]) as desk:
        saas.add("sendgrid", sendgrid(1), "live")
        desk.run("verify", desk.report(row("sendgrid", sendgrid(n), f"{n} ö.env") for n in range(3)), code=10)
        desk.run("report", "-o", "out.sarif")
        document = json.loads((tmp_path / "out.sarif").read_text())
        judged(document)
        assert sorted(r["level"] for r in document["runs"][0]["results"]) == ["error", "note", "note"]
        assert json.loads(desk.run("verify", "--format", "sarif", code=10).stdout)["version"] == "2.1.0"


def test_places_come_whole_however_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lapse.commands.setup import Setup  # only here
    from lapse.ledger import Select
    from lapse.output import listing

    with Desk(tmp_path) as desk:
        rows = [row("sendgrid", sendgrid(n), f"{n}-{m}.env", m + 1) for n in range(7) for m in range(n)]
        desk.run("ingest", desk.report([*rows, row("sendgrid", sendgrid(7), "many.env")]))
        monkeypatch.setattr(listing, "FEW", 4)
        monkeypatch.setattr(listing, "TOGETHER", 3)
        monkeypatch.chdir(tmp_path)
        for name, value in desk.env.items():
            monkeypatch.setenv(name, value)
        with Setup.of(None).ledger() as ledger:
            told = list(listing.reports(ledger, Select()))
    assert sorted(len(k.places) for k in told) == [1, 1, 2, 3, 4, 5, 6]
    for one in told:
        assert len(one.places) == one.findings
        assert len({p.path.partition("-")[0] for p in one.places if p.path}) == 1
        assert [p.line for p in one.places] == sorted(p.line or 0 for p in one.places)


def test_the_official_referee_refuses_what_the_schema_does_not_know() -> None:
    document = json.loads("".join(sarif([])))
    Official.model_validate(document)
    mistakes: list[dict[str, object]] = [{"version": "2.2.0"}, {"runs": [{"tool": {}}]}, {"colour": "red"}]
    for wrong in mistakes:
        with pytest.raises(ValueError, match="validation error"):
            Official.model_validate(document | wrong)
