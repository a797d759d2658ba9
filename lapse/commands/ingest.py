"""`lapse ingest`: reports in, findings and distinct keys on record, nobody asked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lapse.commands.pull import pull, pulls
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
from verifier.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lapse.ledger import Ledger
    from verifier.catalogue import Catalogue
    from verifier.ingest.source import Tree
    from verifier.model import CredentialID, Finding

SHOWN = 10
"""Bad rows told one by one; the rest are counted."""


class Batch(NamedTuple):
    """Where rows come from: a report's name, its format and scanner, and what it speaks for (see `Scan`)."""

    name: str
    format: str
    scanner: str
    origin: str | None
    fallback: str | None = None


class _Told:
    """Counts rows, and names the bad ones, the first few one by one."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name, self._quiet = safe(name), quiet
        self.findings = self.skipped = 0

    def good(self, items: Iterable[Claim | Skipped]) -> Iterator[Claim]:
        for item in items:
            if isinstance(item, Skipped):
                self.skipped += 1
                if self.skipped <= SHOWN:
                    at = f", {safe(item.field)}" if item.field else ""
                    say(f"{self._name}:{item.row}{at}: {item.reason}; {item.remedy}", quiet=self._quiet)
            else:
                self.findings += 1
                yield item

    def end(self) -> None:
        if self.skipped > SHOWN:
            say(f"{self._name}: {plural(self.skipped - SHOWN, 'more row')} skipped", quiet=self._quiet)


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

    def file(
        self,
        name: str,
        as_format: str | None,
        tree: Tree | None,
        origin: str | None,
        *,
        partial: bool,
        known_as: str | None = None,
    ) -> None:
        """Read one report; what cannot be read is one sentence, and the other files go on.

        `known_as` is its lasting name where `name` is but a copy of it (an object of a bucket, a scanner's output).
        """
        try:
            report = read(name, as_format)
        except UnreadableReport as e:
            say(f"lapse: {e}")
            self.failed += 1
            return
        # A report of loose files speaks for what the same report file spoke for the last time.
        fallback = None if name == "-" else f"report:{known_as or Path(name).resolve()}"
        with report:
            self.take(
                Batch(known_as or name, report.format.name, report.format.scanner, origin, fallback),
                report,
                lambda: report.complete and not partial,
                tree,
            )

    def take(
        self, batch: Batch, items: Iterable[Claim | Skipped], whole: Callable[[], bool], tree: Tree | None = None
    ) -> None:
        """Read rows into the ledger; `whole` is asked afterwards whether they were a complete scan."""
        from lapse.ledger import Scan  # SQLAlchemy is slow to import

        told = _Told(batch.name, quiet=self._quiet)
        scan = Scan(
            batch.scanner,
            Path(batch.name).name,
            batch.format,
            batch.origin,
            complete=True,
            fallback=batch.fallback,
        )
        count = self._ledger.ingest(scan, self._rows(told.good(items), tree), whole=whole)
        told.end()
        self.files.append(jsonv1.FileOut(batch.name, batch.format, told.findings, told.skipped, whole()))
        self.findings += told.findings
        self.keys += count.keys
        self.new += count.new
        self.scans.append(count.scan)

    def _rows(self, claims: Iterable[Claim], tree: Tree | None) -> Iterator[tuple[Finding, CredentialID, str]]:
        keep = self._ledger.keeps_secrets
        if tree is not None:
            claims = (self._from_source(claim, tree) for claim in claims)
        for finding in classify_all(claims, self.classifier):
            vendor = self._catalogue.vendor(finding.provider)
            known = finding.parts if finding.hidden is None else self._identifying(finding)
            name = self._ids.of(vendor, finding.provider, known)
            if finding.hidden is not None:
                self.incomplete += 1
            elif not keep:
                self.held.setdefault(name, Credential(name, finding.provider, finding.parts, finding.candidates))
            yield finding, name, hint(finding)

    @staticmethod
    def _identifying(finding: Finding) -> dict[str, Secret]:
        """Return what tells a hidden credential from others: its known parts and its mask, or its place."""
        p = finding.place
        hidden = finding.hidden
        known = repr(hidden) if hidden and hidden.__struct_fields__ else f"{p.origin}:{p.path}:{p.line}"
        return {**finding.parts, "hidden": Secret(f"{finding.scanner}:{finding.rule}:{known}")}

    def _from_source(self, claim: Claim, tree: Tree) -> Claim:
        from verifier.ingest.source import recover, restore  # only with --source

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
    parts = finding.parts
    if len(parts) == 1 and "secret" in parts:
        return ""
    return " ".join(safe(parts[n].reveal())[:60] for n in ("account", "host", "database", "tenant") if n in parts)


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
            if pulls(name):
                pull(setup, intake, name, partial=partial)
            else:
                intake.file(name, as_format, tree, origin, partial=partial)
        keeps = ledger.keeps_secrets
    return tell(intake, keeps=keeps, json=json, quiet=quiet)


def open_tree(stack: ExitStack, source: Path | None) -> Tree | None:
    """Open what `--source` names; a `Stop` when it is nothing to read from."""
    if source is None:
        return None
    from verifier.ingest.boxes import UnreadableSource  # only with --source
    from verifier.ingest.source import open_source

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
            out(f"{safe(f.file)}: {f.format}, {plural(f.findings, 'finding')}, {f.skipped} skipped{whole}")
        out(f"{plural(result.findings, 'finding')} → {plural(result.keys, 'distinct key')} → {result.new} new")
    if result.incomplete:
        say(
            f"{plural(result.incomplete, 'finding')} without a secret (redacted or hashed); --source reads it back",
            quiet=quiet,
        )
    if result.unknown_rules:
        named = ", ".join(safe(r) for r in list(result.unknown_rules)[:5])
        total, rules = sum(result.unknown_rules.values()), plural(len(result.unknown_rules), "rule")
        say(f"{plural(total, 'finding')} of {rules} that nobody knows here: {named}", quiet=quiet)
    if not keeps and not quiet:
        say("no sealing key is configured: secrets are kept for this run only (`lapse ledger init` makes one)")
    if intake.failed and not intake.files:
        return Exit.NO_INPUT
    return Exit.BROKE if intake.failed else Exit.OK
