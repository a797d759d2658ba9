"""Rotations by the command line on real servers: a ledger and a config of its own, `lapse` run in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import boto3
import hvac
import msgspec
from botocore.config import Config
from botocore.exceptions import ClientError

from lapse import cli
from lapse.ledger import open_ledger
from playbooks.journal import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytest
    from servers import Server

    from playbooks.journal import RunState

CONFIG = """
[ledger]
url = "ledger.db"
key = "env:LAPSE_ROTATING_KEK"
[scope]
accounts = ["000000000000"]
hosts = ["127.0.0.1"]
[verify]
retries = 0
[egress]
allow_private = ["127.0.0.1/32"]
[rotate]
wait = "40s"
[rotate.set]
"retire.drain" = "0s"
"retire.soak" = "0s"
"verify.times" = "2"
"verify.every" = "50ms"
"prove.times" = "2"
"prove.window" = "400ms"
"""
ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class Office:
    """A folder with config and ledger, in which `lapse` runs; nothing of the user's environment reaches it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.leaks = 0
        for name in [n for n in os.environ if n.startswith(("LAPSE_", "AWS_", "VAULT_", "BAO_"))]:
            patch.delenv(name)
        patch.setenv("LAPSE_ROTATING_KEK", os.urandom(32).hex())
        patch.setenv("XDG_CACHE_HOME", f"/tmp/lapse-test-cache-{os.getuid()}")
        patch.chdir(folder)
        self.config(CONFIG)

    def config(self, text: str) -> None:
        """Write the config, or add to it: tables only."""
        with (self.folder / "lapse.toml").open("a") as file:
            file.write(text)

    def provider(self, kind: str, url: str) -> None:
        """Ask about this kind of key at `url`."""
        self.config(f'[providers.{kind}]\nbase_url = "{url}"\n')

    def lapse(self, *args: str, code: int | None = 0) -> str:
        """Run a command; return all that it said. `code` is the exit code expected, None for any."""
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
        self.patch.setattr(sys, "argv", ["lapse", *args])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
                got: object = 0
            except SystemExit as e:
                got = e.code or 0
        out.seek(0)
        said = out.read() + err.getvalue()
        assert "mistake in Lapse" not in said, said
        assert code is None or got == code, f"{args}: {got}\n{said}"
        return said

    def leak(self, kind: str, **parts: str) -> str:
        """Let a key be found, and asked about; return its short id."""
        self.leaks += 1
        name = f"leak-{self.leaks}.jsonl"
        row = {"provider": kind, "parts": parts, "place": {"source": "git", "repository": "acme/app", "path": name}}
        (self.folder / name).write_text(json.dumps(row) + "\n")
        lines = self.lapse("verify", name, "--format", "jsonl", "-q", code=None).splitlines()
        (key,) = [k["key"] for k in map(json.loads, lines)]
        return str(key)

    def runs(self) -> Sequence[str]:
        """Return every rotation, oldest first."""
        with open_ledger(self.folder / "ledger.db") as ledger:
            return ledger.rotations.runs()

    def state(self, run: str = "") -> RunState:
        """Return where a rotation stands, the last one by default; the record must be whole."""
        with open_ledger(self.folder / "ledger.db") as ledger:
            assert ledger.check().ok
            run = run or ledger.rotations.runs()[-1]
            return state_of(run, ledger.rotations.entries(run))

    def confirmed(self, key: str) -> bool:
        """Say whether the ledger calls a key dead, and confirmed."""
        lines = self.lapse("report", "--format", "jsonl", code=None).splitlines()
        (row,) = [k for k in map(msgspec.json.decode, lines) if k["key"] == key]
        return bool(row["verdict"] == "dead" and row["confirmed"])


class Aws:
    """An AWS account: `url` may be a proxy's; the administrator is logged in by the environment."""

    def __init__(self, server: Server, office: Office, url: str = "") -> None:
        self.server, self.office = server, office
        settings = {
            "AWS_ENDPOINT_URL": url or server.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": server.admin["id"],
            "AWS_SECRET_ACCESS_KEY": server.admin["secret"],
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        for name, value in settings.items():
            office.patch.setenv(name, value)
        office.provider("aws_akia", url or server.url)
        self.iam = self._client("iam", server.admin["id"], server.admin["secret"])

    def _client(self, service: str, key: str, secret: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.server.url, region_name="us-east-1",
            aws_access_key_id=key, aws_secret_access_key=secret, config=Config(retries={"max_attempts": 0}),
        )  # fmt: skip

    def user(self, name: str) -> dict[str, str]:
        """Make a user with one key; return its parts."""
        self.iam.create_user(UserName=name)
        self.iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(ALLOW))
        made = self.iam.create_access_key(UserName=name)["AccessKey"]
        return {"id": made["AccessKeyId"], "secret": made["SecretAccessKey"]}

    def keys(self, user: str) -> dict[str, str]:
        """Return the user's keys and whether each is active."""
        found = self.iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
        return {k["AccessKeyId"]: k["Status"] for k in found}

    def works(self, key: str, secret: str) -> bool:
        """Say whether a key logs in."""
        client = self._client("sts", key, secret)
        try:
            client.get_caller_identity()
        except ClientError:
            return False
        finally:
            client.close()
        return True


class Vault:
    """An OpenBao; `url` may be a proxy's."""

    def __init__(self, server: Server, office: Office, url: str = "") -> None:
        office.patch.setenv("VAULT_ADDR", url or server.url)
        office.patch.setenv("VAULT_TOKEN", server.admin["token"])
        self.client = hvac.Client(server.url, token=server.admin["token"])

    def put(self, path: str, **fields: str) -> int:
        """Write a value; return its version."""
        said = self.client.secrets.kv.v2.create_or_update_secret(path, fields, mount_point="secret")
        return int(said["data"]["version"])

    def read(self, path: str) -> Mapping[str, str]:
        """Return the newest value, without the run's mark."""
        said = self.client.secrets.kv.v2.read_secret_version(path, mount_point="secret", raise_on_deleted_version=True)
        return {k: v for k, v in said["data"]["data"].items() if k != "lapse_run"}

    def version(self, path: str) -> int:
        """Return the newest version's number."""
        said = self.client.secrets.kv.v2.read_secret_metadata(path, mount_point="secret")
        return int(said["data"]["current_version"])
