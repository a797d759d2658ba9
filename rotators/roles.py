"""Roles in Vault and OpenBao that a rotation makes: whose a role is, written over only if ours, taken back exactly.

Vault keeps no note beside a role, so the run's mark is a comment in a text that the role carries anyway (a statement of
SQL, a policy). It is written in the same call as the role or before it, and read by nobody but us.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from rotators.bao import MARK, bao
from rotators.interface import Presence, ProviderError, Settings, Trouble
from rotators.step import Done, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARKED = re.compile(rf"{MARK}=([A-Za-z0-9-]+)")
_SECONDS = re.compile(r"(\d+)([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def mark(run: str) -> str:
    """Return the run's mark as it stands in a comment."""
    return f"{MARK}={run}"


def marked(text: str) -> str:
    """Return the run that a text's mark names, empty without one."""
    found = _MARKED.search(text)
    return found.group(1) if found else ""


def named(settings: Settings, name: str, who: str, default: str = "") -> str:
    """Return a setting that is one segment of a path; missing or another text is `ProviderError(REFUSED)`."""
    value = settings.get(name) or default
    if not _NAME.fullmatch(value):
        raise ProviderError(Trouble.REFUSED, f"{who} needs a `{name}` of letters, digits and . _ -")
    return value


def mounted(settings: Settings, default: str) -> str:
    """Return the setting `mount`; what cannot be one is `ProviderError(REFUSED)`."""
    value = (settings.get("mount") or default).strip("/")
    if not _MOUNT.fullmatch(value):
        raise ProviderError(Trouble.REFUSED, f"mount = {value!r} is no path of Vault's")
    return value


def seconds(settings: Settings, name: str, default: str) -> int:
    """Return a setting such as `15m` or `3600` in seconds; another text is `ProviderError(REFUSED)`."""
    text = settings.get(name) or default
    found = _SECONDS.fullmatch(text)
    if found is None or not int(found.group(1)):
        raise ProviderError(Trouble.REFUSED, f"{name} = {text!r} is no time: write 900s, 15m or 24h")
    return int(found.group(1)) * _UNITS[found.group(2)]


def read(client: Any, path: str) -> dict[str, Any] | None:  # noqa: ANN401  # hvac publishes no types
    """Return what lies at a path, None when nothing does."""
    try:
        with bao(f"read {path}"):
            said = client.adapter.get(f"/v1/{path}")
    except ProviderError as e:
        if e.trouble is Trouble.GONE:
            return None
        raise
    return dict(said["data"]) if isinstance(said, dict) and said.get("data") is not None else None


def write(client: Any, path: str, data: Mapping[str, Any]) -> None:  # noqa: ANN401  # hvac publishes no types
    """Write to a path."""
    with bao(f"write {path}"):
        client.adapter.post(f"/v1/{path}", json=dict(data))


def delete(client: Any, path: str) -> None:  # noqa: ANN401  # hvac publishes no types
    """Delete what lies at a path; nothing is done where nothing is."""
    try:
        with bao(f"delete {path}"):
            client.adapter.delete(f"/v1/{path}")
    except ProviderError as e:
        if e.trouble is not Trouble.GONE:
            raise


def plugin(client: Any, mount: str, connection: str, role: str) -> str:  # noqa: ANN401  # hvac publishes no types
    """Return the plugin of a connection of the database engine; one that would not let `role` in is a refusal."""
    config = read(client, f"{mount}/config/{connection}")
    if config is None:
        raise ProviderError(Trouble.GONE, f"{mount} has no connection {connection}")
    allowed = config.get("allowed_roles") or []
    if "*" not in allowed and role not in allowed:
        hint = f"add it to allowed_roles of {mount}/config/{connection}"
        raise ProviderError(Trouble.REFUSED, f"connection {connection} lets no role {role} in: {hint}")
    return str(config.get("plugin_name", ""))


def same(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Say whether every wanted field is held as wanted."""
    return all(held.get(name) == value for name, value in wanted.items())


def whose(held: Mapping[str, Any] | None, wanted: Mapping[str, Any], note: str, run: str) -> Presence:
    """Say whose a role is: `note` is the text that would carry the mark."""
    if held is None:
        return Presence.ABSENT
    by = marked(note)
    if by == run:
        return Presence.OURS if same(held, wanted) else Presence.OTHERS
    return Presence.EARLIER if by else Presence.OTHERS


def refused(what: str) -> Failed:
    """Return the outcome where somebody else's thing bears the name."""
    return Failed(
        f"{what} is there already, and it is not this rotation's", "choose another name with --set replace.role=NAME"
    )


def changed(what: str) -> Failed:
    """Return the outcome where somebody else changed what this rotation made."""
    return Failed(f"{what} was changed by somebody else since this rotation made it", "remove it by hand, or keep it")


def kept(data: Mapping[str, Any] | None) -> str:
    """Return a role as a snapshot holds it."""
    return "" if data is None else msgspec.json.encode(data).decode()


def take_back(client: Any, path: str, now: str, run: str, former: str) -> Outcome:  # noqa: ANN401  # hvac publishes no types
    """Delete the role that `run` made, or write its former self again; `now` is the text with the mark as it is now."""
    if marked(now) != run:
        return Done(f"{path} is not of this rotation: left as it is")
    if former:
        write(
            client, path, {n: v for n, v in msgspec.json.decode(former, type=dict[str, Any]).items() if v is not None}
        )
        return Done(f"{path} is as before")
    delete(client, path)
    return Done(f"{path} is gone again")
