"""Vault and OpenBao through hvac: one client a module, the admin's token from the SDK's own variables.

Settings that every module here knows: `address` (else `VAULT_ADDR`), `token_env` (the variable that holds the admin's
token, `VAULT_TOKEN` by default), `namespace` (else `VAULT_NAMESPACE`), `ca_bundle` (else `VAULT_CACERT`).
No redirect is followed: a standby that redirects would have the token handed to a host that nobody named.
"""

from __future__ import annotations

import os
import weakref
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rotators.door import admin_token
from rotators.interface import Fact, ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TIMEOUT = 20
MARK = "lapse_run"
"""Name of the metadata entry, or of the field of a stored value, that says which run made it."""
MOST = 20_000
"""Accessors that are looked at, at most, to find ours among them."""

_GONE = ("bad token", "invalid accessor", "invalid token", "failed to find accessor entry")


class Bao:
    """A connection as admin. It is made at the first call: a plan can be printed without one."""

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings
        self._client: Any = None

    def client(self, leaked: str = "") -> Any:  # noqa: ANN401  # hvac publishes no types
        """Return the hvac client; the leaked token as its own admin is `ProviderError(DENIED)`."""
        token = admin_token((self._settings.get("token_env") or "VAULT_TOKEN",), leaked)
        if self._client is None:
            import hvac  # 60 ms; only who rotates in Vault pays them
            import requests

            address = self._settings.get("address") or os.environ.get("VAULT_ADDR", "")
            if not address:
                raise ProviderError(Trouble.DENIED, "no Vault address: set VAULT_ADDR")
            session = requests.Session()
            session.hooks["response"].append(_no_redirect)
            weakref.finalize(self, session.close)
            self._client = hvac.Client(
                session=session,
                url=address,
                token=token,
                namespace=self._settings.get("namespace") or os.environ.get("VAULT_NAMESPACE") or None,
                verify=self._settings.get("ca_bundle") or os.environ.get("VAULT_CACERT") or True,
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        return self._client

    def preflight(self, paths: Mapping[str, Sequence[str]]) -> Sequence[Fact]:
        """Ask which of the capabilities (path to capabilities) the admin has; a missing one is `DENIED`."""
        client = self.client()
        with bao("ask what the admin may do"):
            said = client.sys.get_capabilities(paths=list(paths))["data"]
            me = client.auth.token.lookup_self()["data"]
        for path, wanted in paths.items():
            has = set(said.get(path, ()))
            lacking = [w for w in wanted if w not in has and "root" not in has]
            if lacking:
                raise ProviderError(Trouble.DENIED, f"the Vault admin lacks {' and '.join(lacking)} on {path}")
        return [Fact("admin", f"Vault token of {me.get('display_name') or me.get('path')}, policies {_listed(me)}")]


def _no_redirect(response: Any, *_: object, **__: object) -> None:  # noqa: ANN401  # requests' hook
    """Refuse a redirect; hvac takes one that it does not follow for success."""
    if response.is_redirect or 300 <= response.status_code < 400:  # HTTP
        import requests

        response.close()
        raise requests.RequestException


@contextmanager
def bao(what: str, *hidden: str) -> Iterator[None]:
    """Turn hvac's and requests' errors into ours: `what` could not be done. `hidden` never appears in the text."""
    import hvac.exceptions as e
    import requests

    try:
        yield
    except e.Forbidden as error:
        said = _said(error, hidden)
        raise ProviderError(Trouble.GONE if _gone(said) else Trouble.DENIED, f"cannot {what}: {said}") from None
    except e.Unauthorized as error:
        raise ProviderError(Trouble.DENIED, f"cannot {what}: {_said(error, hidden)}") from None
    except e.InvalidPath as error:
        raise ProviderError(Trouble.GONE, f"cannot {what}: {_said(error, hidden) or 'nothing is there'}") from None
    except e.InvalidRequest as error:
        said = _said(error, hidden)
        trouble = Trouble.CONFLICT if "check-and-set" in said else Trouble.GONE if _gone(said) else Trouble.REFUSED
        raise ProviderError(trouble, f"cannot {what}: {said}") from None
    except e.VaultDown:
        raise ProviderError(Trouble.LATER, f"cannot {what}: Vault is sealed or in maintenance") from None
    except (e.RateLimitExceeded, e.InternalServerError, e.BadGateway, e.VaultNotInitialized) as error:
        raise ProviderError(Trouble.LATER, f"cannot {what}: {_said(error, hidden)}") from None
    except requests.RequestException:  # its text quotes the URL
        raise ProviderError(Trouble.LATER, f"cannot {what}: Vault gave no usable answer") from None
    except e.VaultError as error:
        raise ProviderError(Trouble.REFUSED, f"cannot {what}: {_said(error, hidden)}") from None


def _said(error: Any, hidden: Sequence[str]) -> str:  # noqa: ANN401  # hvac publishes no types
    """Return Vault's own first sentences, short and without secrets."""
    text = "; ".join(" ".join(str(e).split()) for e in error.errors or ())
    for secret in hidden:
        text = text.replace(secret, "…") if secret else text
    return text[:200]


def _gone(said: str) -> bool:
    """Tell Vault's words for what is not there: 400 or 403 by version and by what was asked."""
    return any(word in said for word in _GONE)


def _listed(me: Mapping[str, Any]) -> str:
    return ", ".join(me.get("policies") or ("none",))


def moment(value: object) -> datetime | None:
    """Read a time as Vault writes it, seconds since 1970 or RFC 3339; None when it is none."""
    if isinstance(value, int) and value > 0:
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, str) or value.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def strings(value: object) -> dict[str, str]:
    """Read metadata as Vault gives it: a map of texts, or null."""
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
