"""HTML, Markdown, DefectDojo and OCSF: each valid, none with a secret, none that runs what scanners wrote."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from io import StringIO
from typing import TYPE_CHECKING, Any, get_args

import pytest
from desk import Desk
from py_ocsf_models.events.findings.detection_finding import DetectionFinding
from pydantic import BaseModel

from lapse.commands.report import shape_of
from lapse.ledger import Scan, open_ledger
from lapse.output import html, listing
from lapse.output.defectdojo import defectdojo
from lapse.output.markdown import markdown
from lapse.output.ocsf import ocsf
from verifier.model import (
    CredentialID,
    Dead,
    Doubt,
    Evidence,
    Finding,
    How,
    Identity,
    KindID,
    Live,
    Place,
    Privilege,
    SourceKind,
    Undecided,
)
from verifier.ports import Judged
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.ledger import Ledger

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style><script>alert(1)</script>",
    "{{7*7}}{% raw %}",
    "]]><!--",
    "| a | b |\n\n# heading @everyone `code`",
    "\x1b[31m\u202egnp.exe",
)
ADMITTED = frozenset(
    [
        "title",
        "severity",
        "description",
        "date",
        "cwe",
        "mitigation",
        "impact",
        "active",
        "verified",
        "is_mitigated",
        "mitigated",
        "line",
        "file_path",
        "component_name",
        "static_finding",
        "dynamic_finding",
        "unique_id_from_tool",
        "vuln_id_from_tool",
        "nb_occurences",
        "tags",
    ]
)
"""Fields of a finding that DefectDojo's generic parser admits (its documentation), of those that we write."""
SECRET = "planted" + "s3cr3t" * 4


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Nine keys whose scanner text is hostile: live, live and gone, undecided, dead, refused once, never asked."""
    with open_ledger(tmp_path / "ledger.db") as made:
        rows = [_row(n, text) for n, text in enumerate(HOSTILE)]
        made.ingest(Scan("gitleaks", "r.json", "gitleaks-json", origin="acme/app", complete=True), rows)
        kept = [r for n, r in enumerate(rows) if n != 1]
        at = made.key(rows[0][1]).first_seen
        who = Identity(principal=HOSTILE[0], account="1", privilege=Privilege.ADMIN)
        said = [
            Live(_evidence(at), who),
            Live(_evidence(at), who, restricted=True),
            Undecided(Doubt.THROTTLED, None, None, HOSTILE[0]),
            Dead(_evidence(at), How.REVOKED, confirmed=True),
            Dead(_evidence(at), How.REVOKED),
        ]
        later = at + timedelta(minutes=1)
        made.record([Judged(rows[n][1], rows[n][0].provider, v, later) for n, v in enumerate(said)])
        made.ingest(Scan("gitleaks", "r.json", "gitleaks-json", origin="acme/app", complete=True), kept)
        yield made


def _row(n: int, text: str) -> tuple[Finding, CredentialID, str]:
    place = Place(SourceKind.GIT, repository=f"acme/{text}", path=f"src/{text}", line=n + 1, author=text)
    parts = {"secret": Secret(f"{SECRET}{n}")}
    return Finding(KindID("openai"), parts, place, "gitleaks", text), CredentialID(f"openai-{n:032x}"), text


def _evidence(at: Any) -> Evidence:
    return Evidence("GET https://api.example/", 200, HOSTILE[0], "0" * 64, "openai@0", at, "api.example", HOSTILE[1])


class Seen(HTMLParser):
    """What a browser would make of a page: tags, attributes, text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _html(ledger: Ledger) -> str:
    out = StringIO()
    html.write(ledger, out)
    return out.getvalue()


def test_the_html_report_stands_alone_and_runs_nothing(ledger: Ledger) -> None:
    text = _html(ledger)
    page = Seen()
    page.feed(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not [n for n, v in page.attributes if n.startswith("on") or (n in {"href", "src"} and ":" in v)]
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert SECRET not in text
    assert any(HOSTILE[0] in t for t in page.text), "shown as text"


def test_the_html_report_puts_the_never_revoked_first(ledger: Ledger) -> None:
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", _html(ledger))
    assert headings[2] == "Removed from source, never revoked"
    first = re.findall(r"<code>(openai-[0-9a-f]+)</code>", _html(ledger))
    assert first[0].endswith("1") or first[0] == ledger.key(CredentialID(f"openai-{1:032x}")).short
    assert len(first) == len(HOSTILE)


def test_the_html_report_breaks_long_lists_into_blocks(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "BLOCK", 2)
    text = _html(ledger)
    assert "Keys 1 to 2" in text
    assert "Keys 3 to 4" in text
    assert len(re.findall(r"<code>openai-", text)) == len(HOSTILE)


def test_every_chart_has_a_title_and_a_table(ledger: Ledger) -> None:
    text = _html(ledger)
    for figure in re.findall(r"<figure.*?</figure>", text, re.DOTALL):
        assert "None yet." in figure or ("<title" in figure and "<table>" in figure)


def test_markdown_shows_scanner_text_as_code_only(ledger: Ledger) -> None:
    text = "".join(markdown(ledger))
    assert text.startswith("## Leaked keys: 2 live, 1 of them removed but never revoked")
    assert SECRET not in text
    bare = re.sub(r"`[^`\n]*`", "", text)
    assert "<" not in bare
    assert "@everyone" not in bare
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) == 2
    assert all(line.count("|") == 6 for line in rows)


def test_defectdojo_admits_every_field(ledger: Ledger) -> None:
    document = json.loads("".join(defectdojo(listing.reports(ledger, listing.Select()))))
    assert document["type"] == "Lapse"
    found = document["findings"]
    assert len(found) == len(HOSTILE)
    for one in found:
        assert {"title", "severity", "description"} <= set(one) <= ADMITTED
        assert one["severity"] in {"Critical", "High", "Medium", "Low", "Info"}
        assert len(one["title"]) <= 511
    live, gone, undecided, dead, refused = found[:5]
    assert (live["active"], live["verified"], live["severity"]) == (True, True, "Critical")
    assert "removed-never-revoked" in gone["tags"]
    assert undecided["active"]
    assert (dead["active"], dead["is_mitigated"], dead["severity"]) == (False, True, "Info")
    assert (refused["active"], refused["is_mitigated"]) == (True, False), "an unconfirmed death closes nothing"
    assert SECRET not in json.dumps(found)


def test_ocsf_is_a_detection_finding(ledger: Ledger) -> None:
    lines = list(ocsf(listing.reports(ledger, listing.Select())))
    events = [json.loads(line) for line in lines]
    assert [e["activity_id"] for e in events[:5]] == [1, 1, 2, 3, 2]
    for event in events:
        DetectionFinding.model_validate(event)
        assert unknown(event, DetectionFinding) == []
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert SECRET not in "".join(lines)


def unknown(value: Any, kind: Any, at: str = "") -> list[str]:
    """Return the attributes that the class does not know: the models themselves let them pass."""
    models = [t for t in (kind, *_inner(kind)) if isinstance(t, type) and issubclass(t, BaseModel)]
    if isinstance(value, list):
        return [x for v in value for x in unknown(v, kind, at)]
    if not isinstance(value, dict) or not models:
        return []
    (model,) = models
    found = [f"{at}.{name}" for name in value if name not in model.model_fields]
    return found + [
        x for n, v in value.items() if n in model.model_fields
        for x in unknown(v, model.model_fields[n].annotation, f"{at}.{n}")
    ]  # fmt: skip


def _inner(kind: Any) -> list[Any]:
    return [x for a in get_args(kind) for x in (a, *_inner(a))]


def test_a_wrong_attribute_is_noticed() -> None:
    assert unknown({"finding_info": {"uuid": 1}}, DetectionFinding) == [".finding_info.uuid"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("r.html", "html"),
        ("r.md", "markdown"),
        ("r.json", "json"),
        ("r.defectdojo.json", "defectdojo"),
        ("r.ocsf.jsonl", "ocsf"),
        ("r.pdf", None),
    ],
)
def test_the_ending_names_the_format(name: str, shape: str | None) -> None:
    assert shape_of(name) == shape


def test_an_empty_ledger_has_a_report_in_every_format(tmp_path: Path) -> None:
    with Desk(tmp_path) as desk:
        for name in ("r.html", "r.md", "r.defectdojo.json", "r.ocsf.jsonl"):
            desk.run("report", "-o", name)
        assert "None live" in (tmp_path / "r.html").read_text()
        assert json.loads((tmp_path / "r.defectdojo.json").read_text())["findings"] == []
