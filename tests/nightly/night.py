"""A made night: a folder with config and ledger, the simulator beside it, and `lapse nightly` run in this process."""

from __future__ import annotations

import io
import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lapse.commands import diff, nightly, policy
from lapse.commands import ledger as ledger_command
from lapse.commands.setup import Setup
from lapse.config import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pytest

    from lapse.exits import Exit
    from lapse.ledger import Ledger
    from lapse.sandbox.saas import Saas

FAST = "rate = 5000.0\nburst = 5000\nconcurrency = 8\n"


class Folder:
    """The config of a night; more is added by `also`."""

    def __init__(self, folder: Path, saas: Saas | None, kinds: Iterable[str], patch: pytest.MonkeyPatch) -> None:
        self.path = folder
        patch.chdir(folder)
        for name in ("DATA", "CONFIG"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
        self._parts = ['[ledger]\nkey = "file:ledger.key"', '[verify]\nconfirm_after = "10ms"\nretries = 0']
        self._parts.append('[egress]\nallow_private = ["127.0.0.1/32"]')
        if saas is not None:
            self._parts += [f'[providers.{k}]\nbase_url = "{saas.base_url(k)}"\n{FAST}' for k in kinds]
        self.config = folder / "lapse.toml"
        self.also('[[nightly.source]]\nfrom = "reports/*.jsonl"')
        (folder / "reports").mkdir()
        with said():
            ledger_command.init(None, self.config)

    def also(self, text: str) -> None:
        self._parts.append(text)
        self.config.write_text("\n".join(self._parts) + "\n")

    def report(self, rows: Iterable[dict[str, Any]], name: str = "a.jsonl") -> None:
        (self.path / "reports" / name).write_text("".join(json.dumps(r) + "\n" for r in rows))

    def night(self, code: Exit | None = None, **options: Any) -> dict[str, Any]:
        """Run a night; return its JSON, with what it said on stderr as `said`."""
        with said() as (out, err):
            ended = nightly.run(nightly.Options(json=True, **options), self.config)
        assert code is None or ended is code, err.getvalue()
        return json.loads(out.getvalue()) | {"said": err.getvalue()}

    def diff(self, since: str = "1d") -> dict[str, Any]:
        with said() as (out, _):
            diff.run(since, self.config, json=True)
        found: dict[str, Any] = json.loads(out.getvalue())
        return found

    def policy(self, key: str) -> dict[str, Any]:
        with said() as (out, _):
            policy.run(key, self.config, json=True)
        found: dict[str, Any] = json.loads(out.getvalue())
        return found

    def ledger(self) -> Ledger:
        return Setup(load(self.config)).ledger()


class _Out(io.StringIO):
    """A text stream that takes bytes too, as stdout does."""

    @property
    def buffer(self) -> Any:
        outer = self

        class _Bytes:
            def write(self, data: bytes) -> None:
                outer.write(data.decode())

            def flush(self) -> None:
                pass

        return _Bytes()


@contextmanager
def said() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Catch what a command prints."""
    old = sys.stdout, sys.stderr
    out, err = _Out(), io.StringIO()
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = old
