"""Findings that arrive by themselves: `POST /hooks/github|gitlab|trufflehog|generic`.

The signature is checked before anything is parsed. What is genuine is written to the spool, synced to the disk, and
answered at once. Then the console reads it into the ledger, if the ledger keeps secrets; what it does not come to is
read by the next `lapse nightly` (`lapse.nightly.spool`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING

from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from lapse.exits import Stop
from lapse.ledger import LedgerError
from lapse.nightly.spool import place, take_in, waiting
from lapse.references import resolve
from lapse.web.guard import body
from lapse.web.pages import house_of

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

    from lapse.web.house import House

LARGEST = 8 << 20
"""Most bytes of one delivery."""

CROWDED = 100_000
"""Deliveries in the spool beyond which new ones are refused: senders try again."""


def spool(house: House) -> Path:
    """Return the folder where deliveries wait."""
    return place(house.ledger.name)


_reading = threading.Lock()


def hand_over(house: House) -> None:
    """Read what waits into the ledger, unless another thread is at it; it then sees the newest delivery as well.

    Without a sealing key the night must read it itself: what a delivery holds is known to the process that read it.
    """
    from lapse.commands.ingest import Intake

    while house.ledger.keeps_secrets and waiting(spool(house)):
        if not _reading.acquire(blocking=False):
            return
        try:
            take_in(Intake(house.setup, house.ledger, quiet=True), spool(house))
        except (LedgerError, OSError):
            return  # it stays where it is, and the night reads it
        finally:
            _reading.release()


async def receive(request: Request) -> Response:
    """Take one delivery. 202: it is on the disk. 401: it is not genuine. 404: no such hook is configured."""
    house, sender = house_of(request), request.path_params["sender"]
    reference = dict(house.serve.hooks).get(sender)
    if not reference:
        raise HTTPException(404, "no hook of this name is configured: see [serve.hooks]")
    held = await body(request, LARGEST)
    try:
        secret = resolve(reference, f"serve.hooks.{sender}").reveal().encode()
    except Stop:
        raise HTTPException(503, "the hook's secret cannot be had") from None
    if not genuine(sender, secret, held, request.headers):
        raise HTTPException(401, "the signature is missing or wrong")
    if request.headers.get("x-github-event") == "ping":
        return PlainTextResponse("pong\n")
    named = request.headers.get("x-github-delivery") or request.headers.get("x-gitlab-event-uuid") or ""
    await run_in_threadpool(keep, spool(house), sender, held, named)
    return PlainTextResponse("kept\n", 202, background=BackgroundTask(hand_over, house))


def genuine(sender: str, secret: bytes, held: bytes, headers: object) -> bool:
    """Say whether a delivery comes from who knows the secret.

    GitHub, TruffleHog and generic senders sign the body (HMAC-SHA256, hex); GitLab sends the secret itself.
    """
    get = getattr(headers, "get")  # noqa: B009  # any mapping of headers
    if sender == "gitlab":
        return hmac.compare_digest(str(get("x-gitlab-token", "")).encode(), secret)
    names = {"github": "x-hub-signature-256", "trufflehog": "x-trufflehog-signature", "generic": "x-lapse-signature"}
    said = str(get(names[sender], "")).removeprefix("sha256=").strip().lower()
    return hmac.compare_digest(said.encode(), hmac.new(secret, held, hashlib.sha256).hexdigest().encode())


def keep(folder: Path, sender: str, held: bytes, named: str) -> Path:
    """Write a delivery durably: its name appears once its bytes and its folder are on the disk. Twice is once."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = hashlib.sha256(named.encode() + held).hexdigest()[:32]
    target = folder / f"{sender}-{mark}.json"
    if target.exists():
        return target
    if sum(1 for _ in os.scandir(folder)) > CROWDED:
        raise HTTPException(503, "too many deliveries wait; try again later")
    part = folder / f".{time.time_ns()}-{secrets.token_hex(4)}.part"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(held)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return target
