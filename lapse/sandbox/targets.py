"""What a rotation needs of the sandbox's servers, and how they are asked past Lapse what became of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lapse.sandbox.servers import Server

BOT = "release-bot"
"""The AWS user whose key is rotated."""

PATH = f"ci/{BOT}"
"""Where OpenBao keeps that key, below `secret/`."""

ROLE = "orders"
"""The database role that OpenBao rotates: its name in PostgreSQL and in OpenBao."""

_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class Answer(Struct, frozen=True):
    """What a server said to a key: whether it let it in, and in which words."""

    accepted: bool
    words: str


@contextmanager
def iam(server: Server) -> Iterator[Any]:
    """Log in to IAM as the root key."""
    import boto3  # slow to import

    client = boto3.client(
        "iam", endpoint_url=server.url, region_name="us-east-1",
        aws_access_key_id=server.user, aws_secret_access_key=server.password,
    )  # fmt: skip
    try:
        yield client
    finally:
        client.close()


@contextmanager
def bao(server: Server) -> Iterator[Any]:
    """Log in to OpenBao as root."""
    import hvac  # slow to import

    client = hvac.Client(url=server.url, token=server.password)
    try:
        yield client
    finally:
        client.adapter.close()


@contextmanager
def sql(server: Server) -> Iterator[Any]:
    """Log in to PostgreSQL as superuser; every statement is its own transaction."""
    import psycopg  # slow to import

    with psycopg.connect(
        host="127.0.0.1", port=server.port, user=server.user, password=server.password, dbname="postgres",
        autocommit=True,
    ) as db:  # fmt: skip
        yield db


def aws_admin(client: Any, server: Server) -> dict[str, str]:  # noqa: ANN401  # boto3's client
    """Make an administrator of its own; return the environment that logs in as it."""
    client.create_user(UserName="lapse-admin")
    client.put_user_policy(UserName="lapse-admin", PolicyName="all", PolicyDocument=json.dumps(_ALL))
    made = client.create_access_key(UserName="lapse-admin")["AccessKey"]
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def keep(server: Server, fields: Mapping[str, str]) -> None:
    """Keep a key where its users read it: in OpenBao."""
    with bao(server) as client:
        client.secrets.kv.v2.create_or_update_secret(PATH, dict(fields), mount_point="secret")


def static_role(vault: Server, database: Server) -> str:
    """Let OpenBao rotate the role from now on; return the password that it sets first."""
    with bao(vault) as client:
        client.sys.enable_secrets_engine("database")
        client.secrets.database.configure(
            name=ROLE,
            plugin_name="postgresql-database-plugin",
            allowed_roles=[ROLE],
            connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{database.port}/postgres?sslmode=disable",
            username=database.user,
            password=database.password,
        )
        client.secrets.database.create_static_role(
            ROLE, db_name=ROLE, username=ROLE, rotation_statements=None, rotation_period=86400
        )
        return str(client.secrets.database.get_static_credentials(ROLE)["data"]["password"])


# ── asked past Lapse ───────────────────────────────────────────────────────────────────────────────────


def minted(client: Any) -> bool:  # noqa: ANN401  # boto3's client
    """Say whether the user has a second access key."""
    return len(client.list_access_keys(UserName=BOT)["AccessKeyMetadata"]) > 1


def stored(server: Server) -> dict[str, str]:
    """Return what OpenBao holds at `PATH`."""
    with bao(server) as client:
        found: dict[str, str] = client.secrets.kv.v2.read_secret_version(
            PATH, mount_point="secret", raise_on_deleted_version=True
        )["data"]["data"]
        return found


def static_password(server: Server) -> str:
    """Return the role's password as OpenBao holds it."""
    with bao(server) as client:
        return str(client.secrets.database.get_static_credentials(ROLE)["data"]["password"])


def ask_aws(server: Server, key_id: str, secret: str) -> Answer:
    """Ask AWS who a key is."""
    import boto3  # slow to import
    from botocore.exceptions import ClientError

    client = boto3.client(
        "sts", endpoint_url=server.url, region_name="us-east-1",
        aws_access_key_id=key_id, aws_secret_access_key=secret,
    )  # fmt: skip
    try:
        return Answer(accepted=True, words=str(client.get_caller_identity()["Arn"]))
    except ClientError as e:
        return Answer(accepted=False, words=str(e.response["Error"]["Code"]))
    finally:
        client.close()


def ask_sql(server: Server, password: str) -> Answer:
    """Log in as the role."""
    import psycopg  # slow to import

    try:
        with psycopg.connect(host="127.0.0.1", port=server.port, user=ROLE, password=password, dbname="postgres") as db:
            row = db.execute("SELECT current_user").fetchone()
    except psycopg.OperationalError as e:
        return Answer(accepted=False, words=str(e).strip().rpartition("FATAL:")[2].strip())
    return Answer(accepted=True, words=f"logged in as {row[0] if row else '?'}")


def ask_huggingface(url: str, token: str) -> Answer:
    """Ask the simulator's Hugging Face who a token is."""
    request = urllib.request.Request(f"{url}/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})  # noqa: S310  # loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by the user's proxy
    try:
        with opener.open(request, timeout=5) as reply:
            return Answer(accepted=True, words=f"HTTP {reply.status}")
    except urllib.error.HTTPError as e:
        return Answer(accepted=False, words=f"HTTP {e.code} {e.read(200).decode(errors='replace')}")
