"""The sandbox as one thing: the servers that could be started, the made-up keys in them, the config that points here.

Nothing in it leaves this machine: every address is on 127.0.0.1, and the config names no other.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from lapse.sandbox import keys, leak, servers, targets
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

[scope]                    # what is ours: nothing else is ever rotated
accounts = ["000000000000"]
organisations = ["acme"]
hosts = ["orders-db.acme.internal", "vault.acme.internal"]

[rotate.set]               # what the shipped playbooks leave open, and shorter looks than they take by themselves
"aws-access-key.store.path" = "ci/release-bot"
"vault-database-static-role.issuer.role" = "orders"
"vault-database-static-role.store.role" = "orders"
"self-revoke.issuer.allow_private" = "127.0.0.1/32"
"verify.every" = "300ms"
"prove.window" = "3s"
"""


class World:
    """The sandbox, while it is entered.

    `planted` are its keys; `servers` what runs; `missing` what does not, and why. `bao`, `aws` and `sql` are the real
    servers that came up; `admin` is the environment in which their administrator is logged in, for rotations.
    """

    def __init__(self, catalogue: Catalogue, scratch: Path) -> None:
        """Take the catalogue, whose examples the simulator speaks, and a folder for the servers' data."""
        self._catalogue, self._scratch = catalogue, scratch
        self._stack = ExitStack()
        self.saas = Saas(catalogue)
        self.planted: list[Planted] = []
        self.servers: list[str] = []
        self.missing: list[str] = []
        self.bao: Server | None = None
        self.aws: Server | None = None
        self.sql: Server | None = None
        self.admin: dict[str, str] = {}
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start what is installed and plant the keys; whatever fails, nothing stays behind."""
        with self._stack:
            self._stack.enter_context(playing(self.saas))
            self._saas()
            self._start("postgresql", servers.postgresql, self._postgresql)  # stopped after OpenBao, its client
            self._start("openbao", servers.openbao, self._openbao)
            self._start("ministack", self._aws_server, self._aws)
            self._database()
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
        text[0] += f'"self-revoke.issuer.base_url" = "{self._addresses["huggingface"]}"\n'
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
        with targets.bao(server) as client:
            live, revoked = (
                client.auth.token.create(policies=["default"], display_name=name)["auth"]["client_token"]
                for name in ("ci-deploy", "ci-old")
            )
            client.auth.token.revoke(revoked)
        self.bao = server
        self.admin |= {"VAULT_ADDR": server.url, "VAULT_TOKEN": server.password}
        self.planted += [leak.vault(live, "VAULT_TOKEN"), leak.vault(revoked, "VAULT_TOKEN_OLD")]
        self._addresses["vault_token"] = server.url
        return "OpenBao: one token live, one revoked"

    def _aws_server(self, folder: Path) -> AbstractContextManager[Server]:
        return servers.ministack(folder, keys.aws_id("123456789012", "root"), keys.aws_secret("root"))

    def _aws(self, server: Server) -> str:
        self.aws = server
        self.planted.append(leak.aws(server.user, server.password))
        with targets.iam(server) as iam:
            self.admin |= targets.aws_admin(iam, server)
            for name, deleted in ((targets.BOT, False), (f"old-{targets.BOT}", True)):
                iam.create_user(UserName=name)
                made = iam.create_access_key(UserName=name)["AccessKey"]
                key, secret = made["AccessKeyId"], made["SecretAccessKey"]
                if deleted:
                    iam.delete_access_key(UserName=name, AccessKeyId=key)
                elif self.bao is not None:
                    targets.keep(self.bao, {"access_key_id": key, "secret_access_key": secret})
                self.planted.append(leak.aws(key, secret, name, f"#releases/{name}", "chat"))
        self._addresses["aws_akia"] = server.url
        return "MiniStack (AWS, signatures checked): a root key, one user's key, one deleted key"

    def _postgresql(self, server: Server) -> str:
        from psycopg import sql  # slow to import

        self.sql = server
        with targets.sql(server) as db:
            role = sql.Identifier(targets.ROLE)
            db.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, _password(targets.ROLE)))
            db.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
        self._addresses["postgres"] = server.url
        return "PostgreSQL: a user's password, and the one it had before"

    def _database(self) -> None:
        """Plant the database's passwords; with OpenBao at hand, it is OpenBao that sets them."""
        if self.sql is None:
            return
        password = targets.static_role(self.bao, self.sql) if self.bao else _password(targets.ROLE)
        self.planted.append(leak.database(targets.ROLE, password, "DATABASE_URL"))
        older = leak.database(targets.ROLE, _password("before"), "DATABASE_URL_OLD", "app/config/production.env")
        self.planted.append(older)


def _password(seed: str) -> str:
    return keys.draw("abcdefghjkmnpqrstuvwxyz23456789", 20, seed)
