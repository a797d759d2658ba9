"""References to secrets: config names where a secret is, never the secret.

`env:NAME` · `file:PATH` · `keyring:SERVICE/NAME` · `vault:PATH#FIELD` (KV v2; address and token from Vault's own
variables).
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from pathlib import Path

from lapse.exits import Exit, Stop
from verifier.secret import Secret

REFERENCE = re.compile(r"(env|file|keyring|vault):(.+)")
_TOKEN = re.compile(r"[A-Za-z0-9+/=_.\-]{20,}")
_HEX = re.compile(r"[0-9a-fA-F]{32,}")


def resolve(reference: str, where: str) -> Secret:
    """Return the secret that `reference` names; `where` (a config key) begins the sentence when it cannot be had."""
    m = REFERENCE.fullmatch(reference)
    if m is None:
        raise Stop(
            f"{where} is no reference; write env:NAME, file:PATH, keyring:SERVICE/NAME or vault:PATH#FIELD", Exit.USAGE
        )
    scheme, rest = m.groups()
    match scheme:
        case "env":
            value = os.environ.get(rest, "")
            if not value:
                raise Stop(f"{where}: the environment variable {rest} is not set", Exit.USAGE)
            return Secret(value)
        case "file":
            return _file(Path(rest).expanduser(), where)
        case "keyring":
            return _keyring(rest, where)
        case _:
            return _vault(rest, where)


def _file(path: Path, where: str) -> Secret:
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8"
        raise Stop(f"{where}: cannot read {path}: {reason}", Exit.USAGE) from None
    if mode & 0o077:
        raise Stop(f"{where}: {path} can be read by others; run chmod 600 on it", Exit.USAGE)
    return Secret(text)


def _keyring(rest: str, where: str) -> Secret:
    try:
        import keyring  # noqa: PLC0415  # optional and slow
    except ImportError:
        raise Stop(f"{where}: keyring: needs the extra: pip install 'lapse[keyring]'", Exit.USAGE) from None
    service, _, name = rest.partition("/")
    value = keyring.get_password(service, name)
    if not value:
        raise Stop(f"{where}: the keyring holds nothing for {service}/{name}", Exit.USAGE)
    return Secret(value)


def _vault(rest: str, where: str) -> Secret:
    import hvac  # noqa: PLC0415  # slow to import

    path, _, field = rest.partition("#")
    mount, _, key = path.partition("/")
    client = hvac.Client(url=os.environ.get("VAULT_ADDR"), token=os.environ.get("VAULT_TOKEN"))
    try:
        data = client.secrets.kv.v2.read_secret_version(path=key, mount_point=mount, raise_on_deleted_version=True)
        return Secret(str(data["data"]["data"][field]))
    except (hvac.exceptions.VaultError, KeyError, OSError) as e:
        raise Stop(f"{where}: Vault does not give {path}#{field} ({type(e).__name__})", Exit.NO_RIGHTS) from None


def looks_like_key(text: str) -> bool:
    """Whether a literal in a config is likely a secret: long, mixed and random. References, URLs and paths are not."""
    if REFERENCE.fullmatch(text) or "://" in text or text.startswith(("/", "~", ".", "arn:")) or " " in text:
        return False
    if not _TOKEN.fullmatch(text) or not any(c.isdigit() for c in text):
        return False
    mixed = any(c.isupper() for c in text) and any(c.islower() for c in text)
    return (mixed or bool(_HEX.fullmatch(text))) and _entropy(text) > 3.0


def _entropy(text: str) -> float:
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
