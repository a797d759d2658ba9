"""An AWS account: MiniStack, which checks signatures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from chaos_databases import command, consumed
from chaos_world import Case, World

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Self

_ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass
class AccessKey(Case):
    """A user's only key, so that there is room for one more; the colleague is another user."""

    world: Any = None
    user: str = ""
    taken: Path | None = None
    theirs: str = ""

    def works(self, fields: Mapping[str, str]) -> bool:
        client = self.world.client("sts", fields["access_key_id"], fields["secret_access_key"])
        try:
            client.get_caller_identity()
        except ClientError as e:
            if e.response["Error"]["Code"] != "InvalidClientTokenId":
                raise
            return False
        return True

    def old_works(self) -> bool:
        return self.works({"access_key_id": self.parts["id"], "secret_access_key": self.parts["secret"]})

    def live(self) -> list[str]:
        """Inactive keys count too: each takes one of two places."""
        found = self.world.iam.list_access_keys(UserName=self.user)["AccessKeyMetadata"]
        return [k["AccessKeyId"] for k in found]

    def others(self) -> object:
        found = self.world.iam.list_access_keys(UserName=self.theirs)["AccessKeyMetadata"]
        return [(k["AccessKeyId"], k["Status"]) for k in found]

    def consumed(self, fields: Mapping[str, str]) -> bool:
        return self.taken is None or consumed(self.taken, fields)


class Aws(World):
    playbook = "aws-access-key"
    kind = "aws_akia"
    needs = ("openbao", "ministack")
    imports = ("hvac", "requests", "pyrage", "boto3", "botocore.signers")

    def enter(self, stack: ExitStack) -> Self:
        self.server = self.servers["ministack"]
        self.iam = self.client("iam")
        return self

    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def config(self) -> str:
        return f'[providers.aws_akia]\nbase_url = "{self.server.url}"\n'

    def client(self, service: str, key: str = "test", secret: str = "test") -> Any:
        return boto3.client(
            service,
            endpoint_url=self.server.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 0}),
        )

    def _user(self) -> tuple[str, dict[str, Any]]:
        name = f"user-{token_hex(6)}"
        self.iam.create_user(UserName=name)
        self.iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(_ALLOW))
        return name, self.iam.create_access_key(UserName=name)["AccessKey"]

    def case(self, n: int) -> AccessKey:
        user, made = self._user()
        theirs, _ = self._user()
        key, secret = made["AccessKeyId"], made["SecretAccessKey"]
        taken = self.folder / f"{user}.json"
        return AccessKey(
            {"id": key, "secret": secret}, {"access_key_id": key, "secret_access_key": secret}, command(taken),
            world=self, user=user, taken=taken, theirs=theirs,
        )  # fmt: skip
