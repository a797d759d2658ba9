"""Which stored field goes under which name at a consumer.

The setting `map` pairs them (`AWS_ACCESS_KEY_ID=id, AWS_SECRET_ACCESS_KEY=secret`); `name` (and `field`, where there
are several) does it for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.secret import Secret


def names(settings: Settings) -> Mapping[str, str]:
    """Return the consumer's name to our field's (empty: the only one); none is `ProviderError(REFUSED)`."""
    pairs: dict[str, str] = {}
    for item in filter(None, (text.strip() for text in settings.get("map", "").split(","))):
        name, equals, field = (part.strip() for part in item.partition("="))
        if not (name and equals and field) or name in pairs:
            raise ProviderError(Trouble.REFUSED, f"map: {item!r} is not of the form NAME=field, or names one twice")
        pairs[name] = field
    if (name := settings.get("name", "")) and not pairs:
        pairs[name] = settings.get("field", "")
    if not pairs:
        raise ProviderError(Trouble.REFUSED, "say where the value goes: name = NAME, or map = NAME=field, …")
    return pairs


def handed(fields: Mapping[str, Secret], settings: Settings) -> Mapping[str, Secret]:
    """Return the consumer's names with their values; a field that is not stored is `ProviderError(REFUSED)`."""
    return {name: chosen(fields, field) for name, field in names(settings).items()}


def chosen(fields: Mapping[str, Secret], field: str) -> Secret:
    """Return one field; unnamed it is the only one, else `secret`, else `password`."""
    if not field:
        if len(fields) == 1:
            return next(iter(fields.values()))
        field = next((usual for usual in ("secret", "password") if usual in fields), "secret")
    if field not in fields:
        raise ProviderError(
            Trouble.REFUSED, f"there is no field {field} to hand over, only {', '.join(sorted(fields))}"
        )
    return fields[field]
