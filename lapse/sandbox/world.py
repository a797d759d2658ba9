"""The sandbox as one thing: the servers that could be started, the made-up keys in them, the config that points here.

Nothing in it leaves this machine: every address is on 127.0.0.1, and the config names no other.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from lapse.sandbox import keys, leak, servers
from lapse.sandbox.saas import Saas, playing

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from lapse.sandbox.leak import Planted
    from lapse.sandbox.servers import Server
    from verifier.catalogue import Catalogue

CONFIG = """\
# The demonstration's configuration: every provider is played on this machine.
[ledger]
url = "ledger.db"
key = "file:ledger.key"

[verify]
confirm_after = "2s"      # 60s unless told otherwise: a death is believed at the second look
retries = 0

[egress]
allow_private = ["127.0.0.1/32"]
"""


class World:
    """The sandbox, while it is entered.

    `planted` are its keys; `servers` what runs; `missing` what does not, and why.
    """

    def __init__(self, catalogue: Catalogue, scratch: Path) -> None:
        """Take the catalogue, whose examples the simulator speaks, and a folder for the servers' data."""
        self._catalogue, self._scratch = catalogue, scratch
        self._stack = ExitStack()
        self.saas = Saas(catalogue)
        self.planted: list[Planted] = []
        self.servers: list[str] = []
        self.missing: list[str] = []
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start what is installed and plant the keys; whatever fails, nothing stays behind."""
        with self._stack:
            self._stack.enter_context(playing(self.saas))
            self._saas()
            self._start("openbao", servers.openbao, self._openbao)
            self._start("ministack", self._aws_server, self._aws)
            self._start("postgresql", servers.postgresql, self._postgresql)
            self.planted += leak.bait()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        self._stack.close()

    def config(self) -> str:
        """Return the text of a `lapse.toml` whose providers are all here."""
        text = [CONFIG]
        for kind, url in sorted(self._addresses.items()):
            text.append(f'[providers.{kind}]\nbase_url = "{url}"\nrate = 100\nburst = 100\n')
        return "\n".join(text)

    def _start(
        self, name: str, run: Callable[[Path], AbstractContextManager[Server]], plant: Callable[[Server], str]
    ) -> None:
        folder = self._scratch / name
        folder.mkdir()
        try:
            server = self._stack.enter_context(run(folder))
        except servers.MissingError as e:
            self.missing.append(str(e))
            return
        self.servers.append(plant(server))

    def _saas(self) -> None:
        for key, state in leak.saas():
            self.planted.append(key)
            self.saas.add(key.kind, key.parts["secret"], state)
            self._addresses[key.kind] = self.saas.base_url(key.kind)
        vendors = {k.vendor for kind in self._addresses if (k := self._catalogue.get(kind)) is not None}
        self.servers.append(f"a simulator that plays {len(vendors)} SaaS providers with replies from their specs")

    def _openbao(self, server: Server) -> str:
        import hvac  # slow to import

        client = hvac.Client(url=server.url, token=server.password)
        live, revoked = (
            client.auth.token.create(policies=["default"], display_name=name)["auth"]["client_token"]
            for name in ("ci-deploy", "ci-old")
        )
        client.auth.token.revoke(revoked)
        client.adapter.close()
        self.planted += [leak.vault(live, "VAULT_TOKEN"), leak.vault(revoked, "VAULT_TOKEN_OLD")]
        self._addresses["vault_token"] = server.url
        return "OpenBao: one token live, one revoked"

    def _aws_server(self, folder: Path) -> AbstractContextManager[Server]:
        return servers.ministack(folder, keys.aws_id("123456789012", "root"), keys.aws_secret("root"))

    def _aws(self, server: Server) -> str:
        import boto3  # slow to import

        iam = boto3.client(
            "iam",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=server.user,
            aws_secret_access_key=server.password,
        )
        self.planted.append(leak.aws(server.user, server.password))
        for name, deleted in (("release-bot", False), ("old-release-bot", True)):
            iam.create_user(UserName=name)
            made = iam.create_access_key(UserName=name)["AccessKey"]
            if deleted:
                iam.delete_access_key(UserName=name, AccessKeyId=made["AccessKeyId"])
            self.planted.append(
                leak.aws(made["AccessKeyId"], made["SecretAccessKey"], name, f"#releases/{name}", "chat")
            )
        iam.close()
        self._addresses["aws_akia"] = server.url
        return "MiniStack (AWS, signatures checked): a root key, one user's key, one deleted key"

    def _postgresql(self, server: Server) -> str:
        import psycopg  # slow to import

        password = keys.draw("abcdefghjkmnpqrstuvwxyz23456789", 20, "orders")
        with psycopg.connect(
            host="127.0.0.1", port=server.port, user=server.user, password=server.password, dbname="postgres",
            autocommit=True,
        ) as db:  # fmt: skip
            db.execute(psycopg.sql.SQL("CREATE ROLE orders LOGIN PASSWORD {}").format(password))
            db.execute("CREATE DATABASE orders OWNER orders")
        self.planted.append(leak.database("orders", password, "DATABASE_URL"))
        before = keys.draw("abcdefghjkmnpqrstuvwxyz23456789", 20, "before")
        self.planted.append(leak.database("orders", before, "DATABASE_URL_OLD", "app/config/production.env"))
        self._addresses["postgres"] = server.url
        return "PostgreSQL: a user's password, and the one it had before"
