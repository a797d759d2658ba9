"""An AWS account (MiniStack checks signatures) with an admin, and users with keys, for the rotators' tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest
    from servers import Server

ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class World:
    """`test`/`test` may do everything; the environment makes it the SDK's own login."""

    def __init__(self, server: Server, patch: pytest.MonkeyPatch) -> None:
        self.server = server
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        self._patch = patch
        self.log_in("test", "test")

    def log_in(self, key: str, secret: str) -> None:
        self._patch.setenv("AWS_ACCESS_KEY_ID", key)
        self._patch.setenv("AWS_SECRET_ACCESS_KEY", secret)

    def client(self, service: str, key: str = "test", secret: str = "test", token: str | None = None) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.server.url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(retries={"max_attempts": 0}),
        )

    def user(self, policy: Mapping[str, Any] | None = ALLOW) -> str:
        name = f"user-{uuid4().hex[:10]}"
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if policy is not None:
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
        return name

    def key(self, user: str) -> Credential:
        made = self.client("iam").create_access_key(UserName=user)["AccessKey"]
        parts = {"id": Secret(made["AccessKeyId"]), "secret": Secret(made["SecretAccessKey"])}
        return Credential(CredentialID(f"aws-{uuid4().hex}"), KindID("aws_akia"), parts)

    def ids(self, user: str) -> list[str]:
        return [k["AccessKeyId"] for k in self.client("iam").list_access_keys(UserName=user)["AccessKeyMetadata"]]

    def alive(self, parts: Mapping[str, Secret]) -> bool:
        try:
            self.client("sts", parts["id"].reveal(), parts["secret"].reveal()).get_caller_identity()
        except ClientError as e:
            if e.response["Error"]["Code"] != "InvalidClientTokenId":
                raise
            return False
        return True
