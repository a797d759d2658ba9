"""`lapse report --run RUN`: signed evidence of one rotation; `--verify FILE`: whether such a file is whole."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from lapse.commands.setup import Setup
from lapse.evidence.audit import Audit, NotEvidence, Signer, audit, expected_key
from lapse.evidence.extract import extract
from lapse.evidence.fold import evidence_of
from lapse.evidence.signing import signed, written
from lapse.exits import Exit, Stop
from lapse.ledger import LedgerError
from lapse.output.console import out, safe, say
from playbooks.journal import Unknown
from verifier.words import plural

if TYPE_CHECKING:
    from lapse.evidence.model import EvidenceFile
    from lapse.ledger import Ledger

SHAPES = {".json": "json", ".html": "html"}


def give(name: str, output: str, shape: str | None, config: Path | None) -> Exit:
    """Write the evidence of a rotation, whole or not at all, and say whose signature it bears."""
    shape = shape or ("json" if output == "-" else SHAPES.get(Path(output).suffix))
    if shape not in SHAPES.values():
        raise Stop("evidence of a rotation is json or html: end the file's name so, or say --format", Exit.USAGE)
    with Setup.of(config).ledger() as ledger:
        try:
            file = gather(ledger, name, datetime.now(UTC))
            data = _page(ledger, file) if shape == "html" else written(file)
        except Unknown as e:
            raise Stop(str(e.args[0]), Exit.USAGE) from None
        except LedgerError as e:
            raise Stop(str(e)) from None
    if problems := audit(data).problems:
        raise Stop(f"the ledger's record of {name} does not add up: {problems[0]}; `lapse ledger check` says more")
    if output == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _keep(Path(output), data)
        say(f"wrote {output}")
    say(
        f"signed with the key sha256:{file.signature.fingerprint}; tell whoever checks it by another way than this file"
    )
    return Exit.OK


def gather(ledger: Ledger, name: str, at: datetime) -> EvidenceFile:
    """Return the signed evidence of the rotation that `name`, or its unique beginning, means."""
    run = ledger.rotations.resolve(name)
    state, part = extract(ledger, run)
    key = ledger.key(state.plan.credential)
    evidence = evidence_of(state, key, ledger.places(key.id), ledger.story(key.id))
    return signed(ledger, evidence, part, at)


def _page(ledger: Ledger, file: EvidenceFile) -> bytes:
    from lapse.evidence.page import page  # Jinja2 is slow to import

    return page(ledger, file)


def _keep(target: Path, data: bytes) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
        part.replace(target)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink()
        raise Stop(f"cannot write {target}: {e.strerror}") from None


def verify(file: Path, key: str | None) -> Exit:
    """Say whether an evidence file is as it was signed, and by whom. Needs no ledger and no configuration.

    Exit 0: it is. 1: something was altered, and where. 3: it is no evidence file. 5: whole, but signed by another key.
    """
    expected = _expected(key) if key is not None else None
    try:
        found = audit(file.read_bytes(), expected)
    except OSError as e:
        raise Stop(f"cannot read {file}: {e.strerror}", Exit.NO_INPUT) from None
    except NotEvidence as e:
        raise Stop(f"{file}: {e}", Exit.NO_INPUT) from None
    if found.problems:
        for problem in found.problems:
            out(safe(problem))
        say(f"{file} is NOT as it was signed")
        return Exit.BROKE
    return _told(file, found)


def _told(file: Path, found: Audit) -> Exit:
    body, by = found.file.body, f"sha256:{found.file.signature.fingerprint}"
    match found.signer:
        case Signer.OTHER:
            out(f"signed by another key: {by}")
            say(f"{file} is whole, but NOT signed by the key that you named: somebody else may have made it")
            return Exit.OTHER_KEY
        case Signer.EXPECTED:
            whose = "the key that you named"
        case Signer.UNKNOWN:
            whose = "nobody said which key to expect: compare it with the one you were told (--public-key)"
        case _:
            assert_never(found.signer)
    run = body.evidence.run
    how = run.outcome or run.status
    out(f"whole: evidence of {safe(run.run)} ({safe(body.evidence.key.key)}, {safe(how)})")
    events = plural(len(body.ledger.events), "ledger event")
    out(f"made {body.made:%Y-%m-%d %H:%M:%S} UTC by {safe(body.made_by)}, {events}")
    out(f"signed by {by}: {whose}")
    return Exit.OK


def _expected(text: str) -> str:
    path = Path(text)
    try:
        return expected_key(text, path.read_bytes() if path.is_file() else None)
    except OSError as e:
        raise Stop(f"cannot read {text}: {e.strerror}", Exit.NO_INPUT) from None
    except ValueError as e:
        raise Stop(f"--public-key {text}: {e}", Exit.USAGE) from None
