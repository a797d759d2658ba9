"""Where a Kubernetes API server is and how to log in to it: settings, the pod's own account, or a kubeconfig."""

from __future__ import annotations

import os
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from rotators.door import admin_token
from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster(Struct, frozen=True):
    """A server and our log-in: a token, or a certificate with its key (PEM). `ca` is the PEM to trust, if any."""

    server: str
    token: str
    ca: bytes
    identity: bytes = b""


def cluster(settings: Settings, account: Path = _ACCOUNT) -> Cluster:
    """Choose: the setting `server` with `token_env`, a named kubeconfig, the pod's account, the usual kubeconfig."""
    if server := settings.get("server"):
        return Cluster(server, admin_token((settings.get("token_env") or "KUBE_TOKEN",)), b"")
    named = settings.get("kubeconfig") or os.environ.get("KUBECONFIG", "").partition(os.pathsep)[0]
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    if not named and host and (account / "token").exists():
        shown = f"[{host}]" if ":" in host else host
        server = f"https://{shown}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
        return Cluster(server, (account / "token").read_text().strip(), (account / "ca.crt").read_bytes())
    return _read(Path(named or "~/.kube/config").expanduser(), settings.get("context", ""))


def _read(path: Path, context: str) -> Cluster:
    import yaml  # only who rolls out to Kubernetes from a workstation

    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        reason = f"cannot read the kubeconfig {path}: set `server` and `token_env`, or KUBECONFIG"
        raise ProviderError(Trouble.DENIED, reason) from None
    chosen = _named(config, "contexts", context or str(config.get("current-context", "")), "context", path)
    where = _named(config, "clusters", str(chosen.get("cluster", "")), "cluster", path)
    who = _named(config, "users", str(chosen.get("user", "")), "user", path)
    if where.get("insecure-skip-tls-verify"):
        raise ProviderError(Trouble.REFUSED, f"{path} turns TLS checks off: name the cluster's authority instead")
    identity = _pem(who, "client-certificate", path) + b"\n" + _pem(who, "client-key", path)
    token = str(who.get("token") or "")
    if file := who.get("tokenFile"):
        token = _file(path, str(file)).decode().strip()
    if not token and not identity.strip():
        hint = "get a token (kubectl create token) and set `server` and `token_env`"
        raise ProviderError(Trouble.DENIED, f"{path} logs in by a plug-in, which is not run here; {hint}")
    return Cluster(str(where.get("server", "")), token, _pem(where, "certificate-authority", path), identity.strip())


def _named(config: object, family: str, name: str, key: str, path: Path) -> Mapping[str, Any]:
    for row in (config.get(family) or ()) if isinstance(config, dict) else ():
        if isinstance(row, dict) and row.get("name") == name and isinstance(row.get(key), dict):
            found: Mapping[str, Any] = row[key]
            return found
    raise ProviderError(Trouble.DENIED, f"{path} has no {key} named {name!r}")


def _pem(row: Mapping[str, Any], name: str, path: Path) -> bytes:
    """Read `NAME-data` (Base64) or the file that `NAME` names; empty when there is neither."""
    if data := row.get(f"{name}-data"):
        try:
            return b64decode(str(data), validate=True)
        except ValueError:
            raise ProviderError(Trouble.DENIED, f"{path}: {name}-data is not Base64") from None
    return _file(path, str(row[name])) if row.get(name) else b""


def _file(config: Path, name: str) -> bytes:
    try:
        return (config.parent / name).read_bytes()
    except OSError as e:
        raise ProviderError(Trouble.DENIED, f"{config} names {name}, which cannot be read: {e.strerror}") from None
