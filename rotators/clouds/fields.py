"""How fields lie in a store that holds one text: as a JSON object, or as the text itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rotators.interface import ProviderError, Settings, Trouble
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN, JSON = "plain", "json"


def layout(settings: Settings) -> str:
    """Return the setting `format`: `json` (the default) or `plain`; another value is `ProviderError(REFUSED)`."""
    value = settings.get("format", JSON)
    if value not in (PLAIN, JSON):
        raise ProviderError(Trouble.REFUSED, f"format = {value!r} is neither json nor plain")
    return value


def pack(fields: Mapping[str, Secret], settings: Settings, former: Mapping[str, Secret]) -> str:
    """Return the text to store. In JSON, fields of `former` that are not set anew are kept; plain takes one field."""
    if layout(settings) == PLAIN:
        if len(fields) != 1:
            raise ProviderError(Trouble.REFUSED, f"format = plain stores one field, not {len(fields)}")
        return next(iter(fields.values())).reveal()
    merged = {name: value.reveal() for name, value in {**former, **fields}.items()}
    return msgspec.json.encode(merged).decode()


def unpack(text: str, settings: Settings) -> dict[str, Secret]:
    """Read the fields back; a plain text is the field that the setting `field` names (`secret` by default)."""
    if layout(settings) == PLAIN:
        return {settings.get("field", "secret"): Secret(text)}
    try:
        found = msgspec.json.decode(text.encode(), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, msgspec.ValidationError):
        reason = 'what is stored there is no JSON object: set format = "plain", or store elsewhere'
        raise ProviderError(Trouble.REFUSED, reason) from None
    return {name: Secret(_text(raw)) for name, raw in found.items()}


def _text(raw: msgspec.Raw) -> str:
    """Return a string as it is and anything else as JSON."""
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.ValidationError:
        return bytes(raw).decode()
