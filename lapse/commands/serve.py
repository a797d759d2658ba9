"""`lapse serve`: the console, on loopback, with a log-in link that works once. `lapse tokens`: for programs."""

from __future__ import annotations

import getpass
import ipaddress
import logging
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

from lapse.commands.setup import Setup
from lapse.config import data_dir
from lapse.exits import Exit, Stop
from lapse.output.console import out, say
from lapse.sections import DURATION, Duration
from lapse.web.access import Tokens
from lapse.web.settings import Role, RoleName

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.web.settings import ServeConfig


def run(config: Path | None, host: str | None, port: int | None, *, quiet: bool) -> Exit:
    """Serve until interrupted. The ledger is opened first, so that a mistake is a sentence and no page."""
    setup = Setup.of(config)
    serve = setup.config.serve
    place = (host or serve.host, serve.port if port is None else port)
    _check(serve, place[0])
    import uvicorn  # only where pages are served

    from lapse.web.app import application  # Jinja2 and Starlette are slow to import
    from lapse.web.house import House

    with setup.ledger() as ledger, _bound(*place) as listener:
        house = House(setup, ledger, serve, getpass.getuser(), config=config)
        port = int(listener.getsockname()[1])
        if _loopback(place[0]):
            link = house.links.make(house.user, Role.named(serve.local_role))
            say(f"open this link once, within ten minutes:\n\n  http://127.0.0.1:{port}/login?t={link}\n")
        say(f"serving {ledger.where} on {place[0]} port {port}; Ctrl-C ends it, and no rotation stops", quiet=quiet)
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server = uvicorn.Server(
            uvicorn.Config(
                application(house),
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=32 * 1024,
            )
        )
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            house.close()
    return Exit.OK


def _check(serve: ServeConfig, host: str) -> None:
    if not _loopback(host) and not (serve.oidc.issuer and serve.hosts):
        said = f"{host} can be reached by others: that takes [serve.oidc] and [serve] hosts; 127.0.0.1 takes neither"
        raise Stop(said, Exit.USAGE)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as e:
        made.close()
        raise Stop(f"cannot listen on {host} port {port}: {e.strerror}; choose another with --port") from None
    made.listen(128)
    return made


def add_token(name: str, role: str, expires: str | None, config: Path | None) -> Exit:
    """Make a token and print it: the only time that it is shown."""
    if role not in get_args(RoleName):
        raise Stop(f"--role {role}: choose {', '.join(get_args(RoleName))}", Exit.USAGE)
    if expires is not None and not DURATION.fullmatch(expires):
        raise Stop(f"--expires {expires}: no duration; write 12h or 90d", Exit.USAGE)
    until = datetime.now(UTC) + Duration(expires).delta if expires else None
    chosen: RoleName = next(r for r in get_args(RoleName) if r == role)
    out(_tokens(config).add(name, chosen, until))
    say(f"token {name}, role {role}: keep it now, it is not shown again")
    return Exit.OK


def list_tokens(config: Path | None) -> Exit:
    """List names, roles and ends; no token."""
    for t in _tokens(config).all():
        out(f"{t.name}  {t.role}  made {t.made:%Y-%m-%d}  {f'ends {t.expires:%Y-%m-%d}' if t.expires else 'no end'}")
    return Exit.OK


def revoke_token(name: str, config: Path | None) -> Exit:
    """Forget a token; a console that runs refuses it from the next request on."""
    if not _tokens(config).revoke(name):
        raise Stop(f"there is no token {name}; `lapse tokens list` names them", Exit.USAGE)
    say(f"token {name} is revoked")
    return Exit.OK


def _tokens(config: Path | None) -> Tokens:
    with Setup.of(config).ledger() as ledger:
        return Tokens(data_dir() / f"tokens-{ledger.name}.json")
