"""Reports in: globs, object stores, secret-scanning APIs, and scanners to run. One broken source stops no other."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.commands.ingest import open_tree
from lapse.commands.pull import pull, pulls
from lapse.exits import Stop
from lapse.nightly.buckets import bucket, is_bucket
from lapse.nightly.web import Trouble
from lapse.output.console import safe, say

if TYPE_CHECKING:
    from lapse.commands.ingest import Intake
    from lapse.commands.setup import Setup
    from lapse.nightly.memory import Memory
    from lapse.sections import SourceRule
    from verifier.ingest.source import Tree

_LARGEST = 5 << 30


class Sources:
    """Reads the configured sources into a ledger. `failed` names those that could not be read, and why."""

    def __init__(self, setup: Setup, intake: Intake, memory: Memory, *, quiet: bool) -> None:
        """Take where reports go, and what was read in nights before."""
        self._setup, self._intake, self._memory, self._quiet = setup, intake, memory, quiet
        self.failed: list[str] = []
        self.unchanged = 0

    def read(self, rule: SourceRule) -> None:
        """Read one source; its trouble is told and noted, not raised."""
        before = self._intake.failed
        try:
            with ExitStack() as stack:
                tree = open_tree(stack, Path(rule.source).expanduser() if rule.source else None)
                self._read(rule, tree)
        except (Stop, Trouble, OSError) as e:
            said = f"{type(e).__name__} ({e.strerror})" if isinstance(e, OSError) else str(e)
            self._fail(rule, said)
            return
        if self._intake.failed > before:
            self.failed.append(f"{rule.title}: a report could not be read")

    def _fail(self, rule: SourceRule, said: str) -> None:
        self.failed.append(f"{rule.title}: {said}")
        say(f"source {safe(rule.title)}: {safe(said)}; the others go on")

    def _read(self, rule: SourceRule, tree: Tree | None) -> None:
        if rule.command:
            self._command(rule, tree)
        elif pulls(rule.from_):
            pull(self._setup, self._intake, rule.from_, partial=rule.partial)
        elif is_bucket(rule.from_):
            self._bucket(rule, tree)
        else:
            self._files(rule, tree)

    def _take(
        self, rule: SourceRule, file: Path, tree: Tree | None, *, partial: bool = False, known_as: str | None = None
    ) -> bool:
        before = self._intake.failed
        partial = partial or rule.partial
        self._intake.file(str(file), rule.as_ or None, tree, rule.origin or None, partial=partial, known_as=known_as)
        return self._intake.failed == before

    def _files(self, rule: SourceRule, tree: Tree | None) -> None:
        """Read the files of a path or glob, oldest first, so that the newest report has the last word."""
        pattern = Path(rule.from_).expanduser()
        found = [p for p in Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor))) if p.is_file()]
        if not found and not any(c in rule.from_ for c in "*?["):
            raise Trouble("there is no such file")
        for file in sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name)):
            stat = file.stat()
            self._once(rule, f"file:{file.resolve()}", f"{stat.st_size}:{stat.st_mtime_ns}", file, tree)

    def _once(
        self, rule: SourceRule, name: str, mark: str, file: Path, tree: Tree | None, known_as: str | None = None
    ) -> None:
        """Read a report unless it is as it was when it was last read; a bad one is tried again the next night."""
        if self._memory.knows(name, mark):
            self.unchanged += 1
        elif self._take(rule, file, tree, known_as=known_as):
            self._memory.note(name, mark)

    def _bucket(self, rule: SourceRule, tree: Tree | None) -> None:
        store = bucket(rule.from_, rule.endpoint)
        for item in sorted(store.items(), key=lambda i: (i.order, i.name)):
            name = f"{rule.from_}:{item.name}"
            if self._memory.knows(name, item.mark):
                self.unchanged += 1
                continue
            if item.name.endswith("/") or not item.size:
                continue
            if item.size > _LARGEST:
                self._fail(rule, f"{item.name} is larger than 5 GiB")
                continue
            # A folder only we can look into: the report holds secrets.
            with tempfile.TemporaryDirectory(prefix="lapse-") as folder:
                file = Path(folder) / Path(item.name).name
                store.fetch(item.name, file)
                self._once(rule, name, item.mark, file, tree, f"{_root(rule.from_)}/{item.name}")

    def _command(self, rule: SourceRule, tree: Tree | None) -> None:
        """Run a scanner. An exit code that is not its way to say `found` makes its report a part of a scan."""
        with tempfile.TemporaryDirectory(prefix="lapse-") as folder:
            stdout = Path(folder) / "report"
            file = Path(rule.file).expanduser() if rule.file else stdout
            if rule.file:
                file.unlink(missing_ok=True)  # an old report must not pass for tonight's
            say(f"runs {safe(rule.command[0])} for {safe(rule.title)}", quiet=self._quiet)
            with stdout.open("wb") as out:
                try:
                    done = subprocess.run(  # noqa: S603  # the words of our own config, no shell
                        rule.command,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.DEVNULL,  # scanners print secrets there too
                        timeout=rule.timeout.seconds,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    raise Trouble(f"{rule.command[0]} took longer than {rule.timeout.text}") from None
                except OSError as e:
                    raise Trouble(f"{rule.command[0]} cannot be run: {e.strerror}") from None
            whole = done.returncode in rule.codes
            if not file.is_file() or not file.stat().st_size:
                if whole and not rule.file:
                    return  # nothing found, and nothing said
                raise Trouble(f"{rule.command[0]} ended with {done.returncode} and left no report")
            self._take(rule, file, tree, partial=not whole, known_as=None if rule.file else f"command:{rule.title}")
            if not whole:
                self._fail(rule, f"{rule.command[0]} ended with {done.returncode}: its report counts as a part")


def _root(address: str) -> str:
    """Return the bucket or container of an address, without the prefix: objects have their whole names."""
    scheme, _, rest = address.partition("://")
    parts = rest.split("/")
    return f"{scheme}://{'/'.join(parts[: 2 if scheme == 'azblob' else 1])}"
