"""Wrapping keys that never leave their keeper: Transit of a real OpenBao, KMS of MiniStack."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from ledger_making import ingest

from lapse.ledger import KeyTrouble, key_source, open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import Server

NOW = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def transit(openbao: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    import hvac

    monkeypatch.setenv("VAULT_ADDR", openbao.url)
    monkeypatch.setenv("VAULT_TOKEN", openbao.admin["token"])
    client = hvac.Client()
    mounts = client.sys.list_mounted_secrets_engines()["data"]
    if "lapse-transit/" not in mounts:
        client.sys.enable_secrets_engine("transit", path="lapse-transit")
    for name in ("ledger", "other"):
        client.secrets.transit.create_key(name, mount_point="lapse-transit")
    client.adapter.close()
    return "vault:lapse-transit/ledger"


def test_a_ledger_under_transit(transit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger(tmp_path / "l.db", transit) as ledger:
        ingest(ledger, [(1, 0)])
    with open_ledger(tmp_path / "l.db", transit) as ledger:
        assert len(list(ledger.due(NOW))) == 1
        ledger.rewrap("vault:lapse-transit/other")
    with open_ledger(tmp_path / "l.db", transit) as ledger, pytest.raises(KeyTrouble, match="not the key"):
        list(ledger.due(NOW))
    with open_ledger(tmp_path / "l.db", "vault:lapse-transit/other") as ledger:
        assert len(list(ledger.due(NOW))) == 1
    monkeypatch.setenv("VAULT_TOKEN", "not-a-token")
    with open_ledger(tmp_path / "l.db", transit) as ledger, pytest.raises(KeyTrouble, match="check the token"):
        list(ledger.due(NOW))


def test_transit_out_of_reach(transit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = key_source("vault:no/such/mount/key")
    with pytest.raises(KeyTrouble, match="refused to encrypt"):
        source.wrap(b"x")
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    with pytest.raises(KeyTrouble, match="cannot be reached"):
        key_source(transit).wrap(b"x")
    monkeypatch.delenv("VAULT_ADDR")
    with pytest.raises(KeyTrouble, match="needs VAULT_ADDR"):
        key_source(transit).wrap(b"x")


@pytest.fixture
def kms(ministack: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ministack.admin["id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ministack.admin["secret"])
    client = boto3.client("kms", region_name="us-east-1")
    yield ["awskms:" + client.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
    client.close()


def test_a_ledger_under_kms(kms: list[str], tmp_path: Path) -> None:
    with open_ledger(tmp_path / "l.db", kms[0]) as ledger:
        ingest(ledger, [(1, 0)])
    with open_ledger(tmp_path / "l.db", kms[0]) as ledger:
        assert len(list(ledger.due(NOW))) == 1
    with open_ledger(tmp_path / "l.db", kms[1]) as ledger, pytest.raises(KeyTrouble):
        list(ledger.due(NOW))


def test_kms_out_of_reach(kms: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyTrouble, match="refused to encrypt"):
        key_source(kms[0].rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000").wrap(b"x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(KeyTrouble, match="cannot be reached"):
        key_source(kms[0]).wrap(b"x")
    with pytest.raises(KeyTrouble, match="cannot be reached"):
        key_source("awskms:arn:aws").wrap(b"x")
