"""`lapse ingest`: reports in, findings and distinct keys on record, nobody asked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.output import jsonv1
from lapse.output.console import out, raw, safe, say
from verifier.classify import Classifier, classify_all
from verifier.fingerprint import Fingerprinter
from verifier.ingest.interface import UnreadableReport
from verifier.ingest.read import read
from verifier.model import Claim, Credential, Skipped
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lapse.ledger import Ledger
    from verifier.catalogue import Catalogue
    from verifier.ingest.read import Report
    from verifier.ingest.source import Tree
    from verifier.model import CredentialID, Finding

SHOWN = 10
"""Bad rows told one by one; the rest are counted."""


class Intake:
    """Reads reports into a ledger. `held` keeps the credentials of this run when the ledger may not keep secrets."""

    def __init__(self, setup: Setup, ledger: Ledger, *, quiet: bool) -> None:
        """Take the set-up, the open ledger, and whether to be quiet."""
        self._ledger, self._quiet = ledger, quiet
        self._catalogue: Catalogue = setup.catalogue
        self._ids = Fingerprinter(ledger.id_key)
        self.classifier = Classifier.of(self._catalogue)
        self.held: dict[CredentialID, Credential] = {}
        self.files: list[jsonv1.FileOut] = []
        self.findings = self.keys = self.new = self.incomplete = 0
        self.failed = 0
        self.scans: list[int] = []

    def file(self, name: str, as_format: str | None, tree: Tree | None, origin: str | None, *, partial: bool) -> None:
        """Read one report; what cannot be read is one sentence, and the other files go on."""
        from lapse.ledger import Scan  # noqa: PLC0415  # SQLAlchemy is slow to import

        try:
            report = read(name, as_format)
        except UnreadableReport as e:
            say(f"lapse: {e}")
            self.failed += 1
            return
        with report:
            scan = Scan(
                report.format.scanner,
                Path(name).name,
                report.format.name,
                origin,
                complete=not partial,
                # A report of loose files speaks for what the same report file spoke for the last time.
                fallback=None if name == "-" else f"report:{Path(name).resolve()}",
            )
            rows = self._rows(report, tree)
            count = self._ledger.ingest(scan, rows, whole=lambda: report.complete and not partial)
        self.files.append(
            jsonv1.FileOut(name, report.format.name, report.findings, report.skipped, report.complete and not partial)
        )
        self.findings += count.findings
        self.keys += count.keys
        self.new += count.new
        self.scans.append(count.scan)
        if report.skipped > SHOWN:
            say(f"{safe(name)}: {report.skipped - SHOWN} more rows were skipped", quiet=self._quiet)

    def _rows(self, report: Report, tree: Tree | None) -> Iterator[tuple[Finding, CredentialID, str]]:
        keep = self._ledger.keeps_secrets
        for finding in classify_all(self._claims(report, tree), self.classifier):
            vendor = self._catalogue.vendor(finding.provider)
            name = self._ids.of(vendor, finding.provider, self._identifying(finding))
            if finding.hidden is not None:
                self.incomplete += 1
            elif not keep:
                self.held.setdefault(name, Credential(name, finding.provider, finding.parts, finding.candidates))
            yield finding, name, hint(finding)

    @staticmethod
    def _identifying(finding: Finding) -> dict[str, Secret]:
        """Return what tells this credential from others: its parts; for a hidden one, also mask or place."""
        parts = dict(finding.parts)
        if finding.hidden is not None:
            p = finding.place
            known = repr(finding.hidden) if finding.hidden.__struct_fields__ else f"{p.origin}:{p.path}:{p.line}"
            parts["hidden"] = Secret(f"{finding.scanner}:{finding.rule}:{known}")
        return parts

    def _claims(self, report: Report, tree: Tree | None) -> Iterator[Claim]:
        for item in report:
            if isinstance(item, Skipped):
                if report.skipped <= SHOWN:
                    at = f", {item.field}" if item.field else ""
                    say(f"{safe(report.file)}:{item.row}{at}: {item.reason}; {item.remedy}", quiet=self._quiet)
                continue
            yield item if tree is None else self._from_source(item, tree)

    def _from_source(self, claim: Claim, tree: Tree) -> Claim:
        from verifier.ingest.source import recover, restore  # noqa: PLC0415  # only with --source

        claim = tree.annotate(claim)
        if isinstance(claim.value, Secret):
            return claim
        return restore(claim, recover(claim, tree, self.classifier.fits(claim.scanner, claim.rule)))

    def result(self) -> jsonv1.IngestOut:
        """Return the totals for output."""
        rules = {f"{s}:{r}": n for (s, r), n in self.classifier.unknown_rules.most_common()}
        return jsonv1.IngestOut(tuple(self.files), self.findings, self.keys, self.new, self.incomplete, rules)


def hint(finding: Finding) -> str:
    """Return what may be shown of a key: where it opens, never a part of its secret."""
    shown = {n: finding.parts[n].reveal() for n in ("account", "host", "database", "tenant") if n in finding.parts}
    return " ".join(safe(v)[:60] for v in shown.values())


def run(
    files: Sequence[str],
    as_format: str | None,
    source: Path | None,
    origin: str | None,
    config: Path | None,
    *,
    partial: bool,
    json: bool,
    quiet: bool,
) -> Exit:
    """Read every file; exit 3 when none could be read."""
    setup = Setup.of(config)
    with ExitStack() as stack:
        ledger = stack.enter_context(setup.ledger())
        intake = Intake(setup, ledger, quiet=quiet)
        tree = open_tree(stack, source)
        for name in files:
            intake.file(name, as_format, tree, origin, partial=partial)
        keeps = ledger.keeps_secrets
    return tell(intake, keeps=keeps, json=json, quiet=quiet)


def open_tree(stack: ExitStack, source: Path | None) -> Tree | None:
    """Open what `--source` names; a `Stop` when it is nothing to read from."""
    if source is None:
        return None
    from verifier.ingest.archive import UnreadableSource  # noqa: PLC0415  # only with --source
    from verifier.ingest.source import open_source  # noqa: PLC0415

    try:
        tree = open_source(source)
    except UnreadableSource as e:
        raise Stop(str(e), Exit.NO_INPUT) from None
    stack.callback(tree.close)
    return tree


def tell(intake: Intake, *, keeps: bool, json: bool, quiet: bool) -> Exit:
    """Print the totals; exit 3 when no file could be read."""
    result = intake.result()
    if json:
        raw(jsonv1.encode(result))
    else:
        for f in result.files:
            whole = "" if f.complete else " (not a whole scan)"
            out(f"{safe(f.file)}: {f.format}, {f.findings} findings, {f.skipped} skipped{whole}")
        out(f"{result.findings} findings → {result.keys} distinct keys → {result.new} new")
    if result.incomplete:
        say(f"{result.incomplete} findings hold no secret (redacted or hashed); --source reads it back", quiet=quiet)
    if result.unknown_rules:
        named = ", ".join(safe(r) for r in list(result.unknown_rules)[:5])
        total = sum(result.unknown_rules.values())
        say(f"{total} findings are of {len(result.unknown_rules)} rules nobody knows here: {named}", quiet=quiet)
    if not keeps and not quiet:
        say("no sealing key is configured: secrets are kept for this run only (`lapse ledger init` makes one)")
    if intake.failed and not intake.files:
        return Exit.NO_INPUT
    return Exit.BROKE if intake.failed else Exit.OK
