"""Checks an evidence file with nothing but the file and, better, the fingerprint of the key that should have signed it.

Any change of any byte is found: the file must be its own canonical form, its signature must hold, every event must have
the hash it claims, and each row the digest that its event claims. What was altered is named as closely as it can be.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode, b64encode
from enum import StrEnum
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from lapse.evidence.model import KIND, VERSION, EvidenceFile
from lapse.evidence.signing import PAGE_PURPOSE, PURPOSE, canonical, digests, fingerprint, message, pem
from lapse.ledger.chain import EventKind, event_hash, head_message, read_payload
from lapse.ledger.clock import stamp
from lapse.ledger.model import Head
from lapse.ledger.rowlog import encode_row
from lapse.ledger.seal import verified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapse.evidence.model import LedgerEvent, LedgerSlice

EMBED = re.compile(rb'<script type="application/json" id="evidence">\n([^<]*)\n</script>')
"""Where a page has its data: `<`, `>` and `&` are written as `\\u003c` and so on."""

SEAL = re.compile(rb"<!-- lapse evidence page 1 ([A-Za-z0-9+/]{86}==) -->\n")
"""The last line of a page: the signature over every byte before it."""

_HEX = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


class Signer(StrEnum):
    """Whose key signed: the expected one, another, or nobody said which to expect."""

    EXPECTED = "expected"
    OTHER = "other"
    UNKNOWN = "unknown"


class NotEvidence(Exception):  # noqa: N818  # reads as what it is
    """The file is no evidence file, or one that this version cannot read: one sentence."""


class Audit(Struct, frozen=True):
    """What a check found. `problems` are sentences that say where; none means that nothing was altered."""

    file: EvidenceFile
    signer: Signer
    problems: tuple[str, ...]


def audit(data: bytes, expected: str | None = None) -> Audit:
    """Check a file; `expected` is the fingerprint (hex) of the key that should have signed it.

    What cannot even be read as evidence is `NotEvidence`.
    """
    page = data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    inner = _embedded(data) if page else data
    tree = _tree(inner)
    file = _typed(tree)
    problems = list(_signature(file, tree))
    key = _public_key(file)
    if page:
        problems += _page(data, key)
    elif data != canonical(tree) + b"\n":
        problems.append("the file was altered: it is not written as Lapse writes it (blanks, order or repeated keys)")
    problems += _chain(file.body.ledger, key)
    problems += _journal(file)
    signer = Signer.UNKNOWN
    if expected is not None:
        signer = Signer.EXPECTED if key is not None and fingerprint(key) == expected else Signer.OTHER
    return Audit(file, signer, tuple(dict.fromkeys(problems)))


def expected_key(text: str, read: bytes | None) -> str:
    """Return the fingerprint that `--public-key` means: itself, or that of the key in a file whose content is `read`.

    A file may hold the key as PEM, the fingerprint itself, or a head that `lapse ledger head` printed; else
    `ValueError`.
    """
    if (said := _HEX.fullmatch(text.strip())) is not None and read is None:
        return said[1].lower()
    if read is None:
        raise ValueError("neither a fingerprint (64 hex digits) nor a file")
    if (said := _HEX.fullmatch(read.decode("utf-8", "replace").strip())) is not None:
        return said[1].lower()
    try:
        return fingerprint(bytes.fromhex(msgspec.json.decode(read, type=Head).public_key))
    except (msgspec.MsgspecError, ValueError, UnicodeDecodeError):
        pass
    found = _loaded(read)
    if found is None:
        raise ValueError("no Ed25519 public key, fingerprint or exported head is in it")
    return fingerprint(found)


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────


def _embedded(data: bytes) -> bytes:
    found = EMBED.findall(data)
    if len(found) != 1:
        raise NotEvidence("the page has no evidence in it, or more than one")
    return bytes(found[0])


def _tree(data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(data.decode())
        canonical(tree)
    except (ValueError, RecursionError):
        raise NotEvidence("it is damaged, or was never an evidence file: it is no JSON") from None
    if not isinstance(tree, dict):
        raise NotEvidence("it is no evidence file")
    return tree


def _typed(tree: dict[str, Any]) -> EvidenceFile:
    try:
        body = tree["body"]
        if body["kind"] == KIND and body["v"] != VERSION:
            raise NotEvidence(f"it has version {body['v']}, and this Lapse reads version {VERSION}")
        return msgspec.convert(tree, EvidenceFile)
    except (KeyError, TypeError, msgspec.ValidationError) as e:
        where = re.search(r"`\$\.?(.*?)`", str(e))
        said = f" (at {where[1]})" if where else ""
        raise NotEvidence(f"it is damaged, or was never an evidence file: a part is missing or misread{said}") from None


def _loaded(data: bytes) -> bytes | None:
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None


def _public_key(file: EvidenceFile) -> bytes | None:
    key = _loaded(file.signature.public_key.encode())
    return key if key is not None and pem(key) == file.signature.public_key else None


# ── the file's own signature ───────────────────────────────────────────────────────────────────────────


def _signature(file: EvidenceFile, tree: dict[str, Any]) -> Iterator[str]:
    key, body = _public_key(file), tree["body"]
    if key is None:
        yield "signature.public_key was altered: it is no Ed25519 key"
    elif file.signature.fingerprint != fingerprint(key):
        yield "signature.fingerprint was altered: it is not that of the key"
    if set(tree) != {"body", "signature"} or set(tree["signature"]) != set(file.signature.__struct_fields__):
        yield "the file was altered: something was added beside the body or to the signature"
    value = _decoded(file.signature.value)
    if value is None:
        yield "signature.value was altered: it is not written as Lapse writes it"
    elif key is not None and verified(key, value, message(PURPOSE, canonical(body))):
        return
    wrong = [name for name, digest in _parts(body).items() if file.body.digests.get(name) != digest]
    wrong += [name for name in file.body.digests if name not in _parts(body)]
    yield from (f"body.{name} was altered" for name in wrong)
    if not wrong:
        yield "body.made, body.made_by or body.digests was altered, or the signature is another's: it does not hold"


def _parts(body: dict[str, Any]) -> dict[str, str]:
    return digests(body["evidence"], body["ledger"])


def _decoded(text: str) -> bytes | None:
    try:
        value = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return value if b64encode(value).decode() == text else None


def _page(data: bytes, key: bytes | None) -> Iterator[str]:
    """Check that the page around the data is the one that was signed, to the last byte."""
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    found = SEAL.fullmatch(data[start:])
    value = _decoded(found[1].decode()) if found else None
    if value is None:
        yield "the page was altered: its last line, the signature over the page, is missing or damaged"
    elif key is None or not verified(key, value, message(PAGE_PURPOSE, data[:start])):
        yield "the page was altered: what is to be read on it is not what was signed, whatever the data inside say"


# ── the slice of the ledger ────────────────────────────────────────────────────────────────────────────


def _chain(part: LedgerSlice, key: bytes | None) -> Iterator[str]:
    for event in part.events:
        yield from _event(event)
    for before, after in pairwise(part.events):
        if after.seq <= before.seq:
            yield f"ledger event {after.seq} is out of order: it stands after event {before.seq}"
        elif after.seq == before.seq + 1 and after.prev != before.hash:
            yield f"ledger event {after.seq} does not follow from event {before.seq}: one of them was replaced"
    yield from _head(part, key)


def _event(event: LedgerEvent) -> Iterator[str]:
    where = f"ledger event {event.seq}"
    try:
        refs, prev = b64decode(event.refs, validate=True), bytes.fromhex(event.prev)
        true = event_hash(prev, event.seq, event.at, event.kind, event.payload, refs).hex()
        said = read_payload(event.payload)
    except (ValueError, OverflowError, msgspec.MsgspecError):
        yield f"{where} was altered: it can no longer be read"
        return
    if true != event.hash or b64encode(refs).decode() != event.refs or prev.hex() != event.prev:
        yield f"{where} was altered: its hash is not that of its content"
    if event.brought is None:
        if event.kind == EventKind.ROTATION:
            yield f"{where} was altered: the row that it brought is missing"
        return
    try:
        digest = sha256(b"".join(map(encode_row, event.brought.rows))).hexdigest()
    except OverflowError:
        digest = ""
    if [(event.brought.table, len(event.brought.rows), digest)] != [(s.table, s.count, s.digest) for s in said.rows]:
        yield f"{where}: a row of {event.brought.table} that it brought was altered"


def _head(part: LedgerSlice, key: bytes | None) -> Iterator[str]:
    head = part.head
    try:
        digest, held = bytes.fromhex(head.hash), bytes.fromhex(head.public_key)
        sound = verified(held, bytes.fromhex(head.signature), head_message(head.ledger, head.seq, head.at, digest))
    except (ValueError, OverflowError):
        yield "the ledger's signed head was altered: it can no longer be read"
        return
    if not sound or head.ledger != part.ledger:
        yield "the ledger's signed head was altered: its signature does not hold"
    elif held != key:
        yield "the ledger's head was signed with another key than this file"
    last = part.events[-1] if part.events else None
    if last is not None and (last.seq > head.seq or (last.seq == head.seq and last.hash != head.hash)):
        yield f"ledger event {last.seq} is not what the signed head says"


def _journal(file: EvidenceFile) -> Iterator[str]:
    """Compare the journal as told with the rows that the ledger's events brought."""
    evidence = file.body.evidence
    told = [(n.seq, evidence.run.run, stamp(n.at), n.step, n.what, n.text) for n in evidence.journal]
    rows = [
        (row[0], row[1], *row[3:7])
        for event in file.body.ledger.events
        if event.brought is not None and event.brought.table == "rotations"
        for row in event.brought.rows
    ]
    numbers = [row[0] for row in rows if isinstance(row[0], int)]
    if numbers != sorted(set(numbers)):
        yield "the ledger's rows of the journal are out of order"
    for n, one in enumerate(told):
        if n >= len(rows) or one != rows[n]:
            yield f"evidence.journal[{n}] is not what the ledger's row {one[0]} says"
            return
    if len(rows) > len(told):
        yield f"evidence.journal lacks what the ledger's row {rows[len(told)][0]} says"
