"""Every stray reply, by a real socket, at every kind whose probe is Python: never a verdict, never an exception.

The kinds that are TOML meet the same noise in `test_contract.py`; here are those whose code reads replies itself, the
log-ins among them: whatever speaks HTTP, TLS or nonsense on a database's port is no database.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import makers
import pytest
from noise import BEHAVIOURS, NOISE, NOWHERE, NoiseServer

from verifier.catalogue import load_catalogue
from verifier.egress import Egress, Limits, Settings
from verifier.model import Credential, CredentialID, Undecided
from verifier.probe import probe
from verifier.secret import Secret

if TYPE_CHECKING:
    from verifier.spec import Kind

CATALOGUE = load_catalogue()
KINDS = [k for k in CATALOGUE if k.probe == "code"]
SETTINGS = Settings(allow_private=(ip_network("127.0.0.0/8"),), deadline=0.25, retries=0)
LOGIN = {
    "host": "db.acme.test", "username": "app", "password": "correct horse", "database": "orders", "region": "eu-west-1",
    "account": "acmestore", "tenant": "72f988bf-86f1-41af-91ab-2d7cd011db47", "token": makers.draw(makers.ALNUM, 200),
}  # fmt: skip


def credential(kind: Kind) -> Credential:
    parts = {}
    for part in kind.parts:
        if kind.id == "gcp_sa":
            value = makers.gcp_service_account()
        elif kind.id == "private_key_tls":
            value = makers.private_key()
        elif part in LOGIN and not (part == "host" and kind.id == "azure_cosmos"):
            value = LOGIN[part]
        elif part == "host":
            value = "acme.documents.azure.com"
        else:
            value = makers.make(kind.id, part)
        parts[part] = Secret(value)
    return Credential(CredentialID(f"{kind.vendor}-{'0' * 32}"), kind.kind_id, parts)


@pytest.mark.parametrize("kind", KINDS, ids=[k.id for k in KINDS])
async def test_no_stray_reply_is_a_verdict(kind: Kind) -> None:
    one = credential(kind)
    said: dict[str, object] = {}
    async with NoiseServer() as server:
        bases = {name: server.base(name) for name in (*(s.name for s in NOISE), *BEHAVIOURS)}
        bases |= {where: where for where in NOWHERE}
        for name, base in bases.items():
            door = Egress(
                CATALOGUE.manifest(),
                settings=SETTINGS,
                overrides={kind.id: base},
                limits={kind.id: Limits(1000.0, 1000, 16)},
                environ={},
            )
            async with door:
                said[name] = await probe(CATALOGUE, one, door, base)
        asked = len(server.seen)
    wrong = {name: verdict for name, verdict in said.items() if not isinstance(verdict, Undecided)}
    assert wrong == {}
    if kind.id != "private_key_tls":  # which asks only with a certificate: see test_private_key.py
        assert asked >= len(NOISE)
