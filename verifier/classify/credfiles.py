"""Takes whole credential files apart: kubeconfig, `.netrc`, `.npmrc`, `.pypirc`, PKCS #12.

A file that holds several log-ins is left as it is: which of them was meant, nobody can tell. Nothing here raises.
"""

from __future__ import annotations

import binascii
import configparser
import re
from base64 import b64decode
from typing import Any
from urllib.parse import urlsplit

from verifier.classify.split import Split, login, pem
from verifier.model import KindID

_LONGEST = 256 << 10
_KUBECONFIG = re.compile(r"^\s*[\"']?(?:clusters|users)[\"']?\s*:", re.MULTILINE)
_NETRC = re.compile(r"\bmachine\s+(\S+)")
_NETRC_FIELD = re.compile(r"\b(login|password|account)\s+(\"[^\"]*\"|\S+)")
_NPMRC = re.compile(
    r"^\s*//([^\s:/]+(?::\d+)?)(/[^\s=]*?)?/?:(_authToken|_auth|username|_password)\s*=\s*(\S+)\s*$", re.MULTILINE
)
_PFX = re.compile(r"MII.{3}IBAzCC[A-Za-z0-9+/\s]+={0,2}", re.DOTALL)
"""Base64 of a SEQUENCE whose first member is the INTEGER 3 and whose second a SEQUENCE: RFC 7292's PFX."""

_BASIC = KindID("basic_auth_url")


def take(text: str) -> Split | None:
    """Return the one log-in of a credential file; `None` if `text` is no such file or holds several."""
    if len(text) > _LONGEST:
        return None
    if _KUBECONFIG.search(text) and "server" in text:
        return kubeconfig(text)
    if "_auth" in text or "_password" in text:
        return npmrc(text)
    if "machine" in text and "password" in text:
        return netrc(text)
    if text.lstrip().startswith("[") and "password" in text:
        return pypirc(text)
    return pfx(text) if _PFX.fullmatch(text.strip()) else None


def kubeconfig(text: str) -> Split | None:
    """Return what the current context (or the only one) logs in with: a token, a certificate's key, a password."""
    import yaml  # noqa: PLC0415  # only where such a file is met

    try:
        data = yaml.load(text, yaml.CSafeLoader)  # the safe loader, in C
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, TypeError, AttributeError):
        return None
    if not isinstance(data, dict):
        return None
    context = _named(data, "contexts", "context", data.get("current-context")) or {}
    user = _named(data, "users", "user", context.get("user"))
    cluster = _named(data, "clusters", "cluster", context.get("cluster"))
    if user is None or cluster is None:
        return None
    host = _server(cluster.get("server"))
    match user:
        case {"token": str(token)} if token:
            return Split(KindID("kubernetes_sa"), {"secret": token} | host)
        case {"client-key-data": str(key)}:
            parts = {"secret": _pem64(key), "certificate": _pem64(user.get("client-certificate-data"))}
            return Split(KindID("private_key_tls"), {n: v for n, v in parts.items() if v}) if parts["secret"] else None
        case {"username": str(name), "password": str(password)} if name and password:
            return Split(_BASIC, {"username": name, "password": password} | host)
        case _:
            return None


def _named(data: dict[str, Any], listed: str, inner: str, name: object) -> dict[str, Any] | None:
    """Return the entry called `name` of a list of the file, or the only one."""
    entries = data.get(listed)
    if not isinstance(entries, list):
        return None
    found = [e for e in entries if isinstance(e, dict) and (e.get("name") == name or len(entries) == 1)]
    value = found[0].get(inner) if len(found) == 1 else None
    return value if isinstance(value, dict) else None


def _server(url: object) -> dict[str, str]:
    """Return the host of a server; nothing where a path follows, as behind it lies another server than at the root."""
    if not isinstance(url, str):
        return {}
    try:
        parts = urlsplit(url)
    except ValueError:
        return {}
    if parts.scheme != "https" or parts.path.strip("/") or "@" in parts.netloc or not parts.netloc:
        return {}
    return {"host": parts.netloc.lower()}


def _pem64(text: object) -> str:
    if not isinstance(text, str):
        return ""
    try:
        return pem(b64decode(text).decode()) or ""
    except (binascii.Error, ValueError):
        return ""


def netrc(text: str) -> Split | None:
    """Return the log-in of the only machine."""
    machines = _NETRC.findall(text)
    found: dict[str, str] = {}
    for name, value in _NETRC_FIELD.findall(text):
        if name in found:
            return None
        found[name] = value.strip('"')
    if len(machines) != 1 or not found.get("password"):
        return None
    parts = {"host": machines[0].lower(), "username": found.get("login", ""), "password": found["password"]}
    return Split(_BASIC, {n: v for n, v in parts.items() if v})


def npmrc(text: str) -> Split | None:
    """Return the only registry's token or log-in; a token that the environment fills in is none."""
    lines = _NPMRC.findall(text)
    if len({(host, path) for host, path, _, _ in lines}) != 1:
        return None
    host, path = lines[0][0].lower(), lines[0][1].strip("/")
    said = {name: value.strip("\"'") for _, _, name, value in lines}
    if any("${" in value for value in said.values()):
        return None
    where = {"host": host} | ({"path": path} if path else {})
    if token := said.get("_authToken"):
        if host.endswith(".jfrog.io"):
            return Split(KindID("artifactory"), {"secret": token, "host": host})
        # behind a path lies another product's registry, whose token is not asked at the root
        return Split(KindID("npm"), {"secret": token} | ({} if path else {"host": host}))
    if auth := login(said.get("_auth", "")):
        return Split(_BASIC, auth | where)
    try:
        password = b64decode(said.get("_password", ""), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    if not (password and said.get("username")):
        return None
    return Split(_BASIC, {"username": said["username"], "password": password} | where)


def pypirc(text: str) -> Split | None:
    """Return the log-in of the only index that has a password."""
    file = configparser.RawConfigParser()
    try:
        file.read_string(text)
        having = [dict(file[s]) for s in file.sections() if file[s].get("password")]
    except (configparser.Error, ValueError, AttributeError, TypeError):
        return None
    if len(having) != 1 or not having[0].get("username"):
        return None
    one = having[0]
    parts = {"username": one["username"], "password": one["password"]}
    if parts["username"] == "__token__" and parts["password"].startswith("pypi-"):
        return Split(KindID("pypi"), {"secret": parts["password"]})
    try:
        place = urlsplit(one.get("repository", ""))
    except ValueError:
        return None
    if place.hostname and place.scheme == "https":
        parts |= {"host": place.netloc.rpartition("@")[2].lower()}
        if path := place.path.strip("/"):
            parts["path"] = path
    return Split(_BASIC, parts)


def pfx(text: str) -> Split | None:
    """Return key and certificate of a PKCS #12 file in base64 without a password; behind one, the file itself."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # 0.1 s, where such a file is met
    from cryptography.hazmat.primitives.serialization import pkcs12  # noqa: PLC0415  # slow to import; few texts are PFX

    kind = KindID("private_key_tls")
    plain = "".join(text.split())
    try:
        data = b64decode(plain, validate=True)
    except binascii.Error:
        return None
    for password in (None, b""):
        try:
            key, certificate, _ = pkcs12.load_key_and_certificates(data, password)
        except (ValueError, TypeError):
            continue
        if key is None:
            return None
        form = serialization.PrivateFormat.PKCS8
        encoding = serialization.Encoding.PEM
        parts = {"secret": key.private_bytes(encoding, form, serialization.NoEncryption()).decode()}
        if certificate is not None:
            parts["certificate"] = certificate.public_bytes(encoding).decode()
        return Split(kind, parts)
    return Split(kind, {"secret": plain})
