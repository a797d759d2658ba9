"""What a user says over a playbook: `--set store.path=secret/ci`, before it is compiled. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from playbooks.schema import Playbook
from playbooks.specfile import PlaybookError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = {"use", "managed"}
_TABLES = {"evidence", "contain", "create", "verify", "retire", "prove", "approvals"}
_REPLACE = {"use", "suggest", "docs", "files"}
_WHOLE = re.compile(r"\d{1,3}")


def settled(book: Playbook, sets: Mapping[str, str]) -> Playbook:
    """Return the playbook with these settings laid over it.

    Names: `issuer.SETTING`, `store.use`, `store.SETTING`, `store.write.FIELD`, `consumers.N.use`, `consumers.N.SETTING`
    (N from 0; the next free one adds a consumer), `sessions.N.…`, `replace.use`, `replace.SETTING`, and the slots' own
    keys such as `retire.soak` or `create.open`.
    Whatever does not fit is a `PlaybookError` that names it.
    """
    if not sets:
        return book
    data: dict[str, Any] = msgspec.to_builtins(book)
    for name, value in sorted(sets.items()):
        try:
            _lay(data, name.split("."), value)
        except (KeyError, IndexError, ValueError):
            raise PlaybookError(f"--set {name}: the playbook {book.id} has no such setting") from None
    try:
        return msgspec.convert(data, Playbook, strict=True)
    except msgspec.ValidationError as e:
        said = re.sub(r" - at `\$\.?(.*?)`$", r" (at \1)", str(e))
        raise PlaybookError(f"--set: {said[0].lower()}{said[1:]}") from None


def chosen(sets: Mapping[str, str], book: str) -> dict[str, str]:
    """Return the settings of a config that are meant for this playbook; `BOOK.store.path` wins over `store.path`."""
    heads = {"issuer", "store", "consumers", "sessions", "replace", *_TABLES}
    found = {n: v for n, v in sets.items() if n.partition(".")[0] in heads}
    return found | {n.removeprefix(f"{book}."): v for n, v in sets.items() if n.startswith(f"{book}.")}


def _lay(data: dict[str, Any], path: list[str], value: str) -> None:
    match path:
        case ["issuer", name]:
            data["issuer_settings"][name] = value
        case ["store", "write", name]:
            _there(data, "store")["write"][name] = value
        case ["store", name]:
            _hand(_there(data, "store"), name, value)
        case [("consumers" | "sessions") as family, number, name]:
            members: list[dict[str, Any]] = list(data[family])
            data[family] = members
            if int(number) == len(members):
                members.append({"use": "", "settings": {}})
            _hand(members[int(number)], name, value)
        case ["replace", name]:
            held = data["replace"] or {"suggest": "a way without a stored key", "settings": {}}
            data["replace"] = held
            (held if name in _REPLACE else held["settings"])[name] = value
        case [table, name] if table in _TABLES:
            slot = _there(data, table)
            slot[name] = _typed(value, slot.get(name))
        case _:
            raise ValueError(path)


def _there(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data[name]
    if not isinstance(found, dict):
        raise KeyError(name)
    return found


def _hand(hand: dict[str, Any], name: str, value: str) -> None:
    if name in _OWN:
        hand[name] = value == "true" if name == "managed" else value
    else:
        hand["settings"][name] = value


def _typed(value: str, held: object) -> object:
    if isinstance(held, bool):
        if value not in {"true", "false"}:
            raise ValueError(value)
        return value == "true"
    return int(value) if isinstance(held, int) and _WHOLE.fullmatch(value) else value
