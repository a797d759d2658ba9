"""Anthropic API keys through the Admin API: found by the mask it shows, set inactive and active, archived.

The API makes no keys and deletes none: a successor is made in the Console (the playbook's assisted step), and
`archived` is the end. https://platform.claude.com/docs/en/api/admin/api_keys/list
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rotators.door import Door, Route, admin_token, refusal
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from rotators.masks import only

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rotators.interface import Settings
    from verifier.model import Credential

_LIST = Route("GET", "/v1/organizations/api_keys")
_ONE = Route("GET", "/v1/organizations/api_keys/{id}")
_SET = Route("POST", "/v1/organizations/api_keys/{id}")
_VERSION = "2023-06-01"
_COMMON = ("sk-ant-api03-",)
_PAGES = 200
_STATES = {"active": State.ACTIVE, "inactive": State.DISABLED, "archived": State.GONE, "expired": State.GONE}


class AnthropicAdmin:
    """Keys of one organisation. The admin key is in `ANTHROPIC_ADMIN_KEY` (or what `token_env` names)."""

    name = "anthropic_admin"
    kinds = ("anthropic",)
    style = Style.REVOKE
    reversible = True
    propagation = timedelta(minutes=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("an admin key (sk-ant-admin…)",),
        "disable": ("an admin key (sk-ant-admin…)",),
        "enable": ("an admin key (sk-ant-admin…)",),
        "retire": ("an admin key (sk-ant-admin…)",),
    }
    also_dies = "Nothing else dies. A key that is archived cannot come back."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings
        self._door = Door("https://api.anthropic.com", (_LIST, _ONE, _SET), settings)

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """See that the admin key may list keys."""
        answer = self._door.call(_LIST, query={"limit": "1"}, headers=self._headers())
        if not answer.good:
            raise refusal(answer, "list the organisation's keys", hint="is it an admin key?")
        return [Fact("admin", "an admin key of the organisation")]

    def _headers(self, leaked: str = "") -> dict[str, str]:
        name = self._settings.get("token_env") or "ANTHROPIC_ADMIN_KEY"
        return {"x-api-key": admin_token((name,), leaked), "anthropic-version": _VERSION}

    def locate(self, old: Credential) -> KeyRef:
        """Find the one key whose mask (`sk-ant-api03-R2D...igAA`) stands for this one."""
        key = old.parts["secret"].reveal()
        return _ref(only(self._all(key), lambda k: str(k.get("partial_key_hint") or ""), key, _COMMON, "Anthropic"))

    def _all(self, leaked: str = "") -> Iterator[dict[str, Any]]:
        query = {"limit": "100"}
        for _ in range(_PAGES):
            answer = self._door.call(_LIST, query=query, headers=self._headers(leaked))
            if not answer.good:
                raise refusal(answer, "list the organisation's keys")
            page = answer.json()
            yield from page.get("data") or ()
            if not page.get("has_more") or not page.get("last_id"):
                return
            query = {"limit": "100", "after_id": str(page["last_id"])}

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the keys that the same person made."""
        return [key for key in map(_ref, self._all()) if key.owner == ref.owner]

    def mint(self, ref: KeyRef, marker: str) -> Minted:  # noqa: ARG002  # there is no way to
        """Refuse: keys are made in the Console."""
        raise ProviderError(Trouble.REFUSED, "Anthropic makes keys in its Console only: make one by hand")

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:  # noqa: ARG002  # the contract's arguments
        """Return nothing: nothing is minted."""
        return []

    def disable(self, ref: KeyRef) -> None:
        """Set the key inactive."""
        self._set(ref, "inactive")

    def enable(self, ref: KeyRef) -> None:
        """Set the key active again."""
        self._set(ref, "active")

    def retire(self, ref: KeyRef) -> None:
        """Archive the key, for good; one that is archived or expired is done."""
        if self.state(ref) is not State.GONE:
            self._set(ref, "archived")

    def _set(self, ref: KeyRef, status: str) -> None:
        answer = self._door.call(_SET, fill={"id": ref.id}, headers=self._headers(), json={"status": status})
        if not answer.good:
            raise refusal(answer, f"set key {ref.id} {status}")
        if answer.json().get("status") != status:
            raise ProviderError(Trouble.LATER, f"Anthropic took the call but key {ref.id} is not {status} yet")

    def _get(self, ref: KeyRef) -> dict[str, Any]:
        answer = self._door.call(_ONE, fill={"id": ref.id}, headers=self._headers())
        if not answer.good:
            raise refusal(answer, f"read key {ref.id}")
        found: dict[str, Any] = answer.json()
        return found

    def state(self, ref: KeyRef) -> State:
        """Say what its status is; one that is not listed is gone."""
        try:
            return _ref(self._get(ref)).state
        except ProviderError as e:
            if e.trouble is Trouble.GONE:
                return State.GONE
            raise

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # the API keeps no history
        """Say whose it is and what it is called; the API tells no last use."""
        about = self._get(ref)
        return [
            Fact("name", str(about.get("name") or "")),
            Fact("made", f"{about.get('created_at')} by {(about.get('created_by') or {}).get('id')}"),
            Fact("workspace", str(about.get("workspace_id") or "the default one")),
            Fact("last used", "the Admin API does not tell; the Console shows usage and cost by key"),
        ]


def _ref(about: Mapping[str, Any]) -> KeyRef:
    made = about.get("created_at")
    return KeyRef(
        str(about["id"]),
        str((about.get("created_by") or {}).get("id") or ""),
        _STATES.get(str(about.get("status")), State.ACTIVE),
        datetime.fromisoformat(made) if isinstance(made, str) else None,
        label=str(about.get("name") or ""),
    )


def make(settings: Settings) -> AnthropicAdmin:
    """Return the issuer for a playbook's slot."""
    return AnthropicAdmin(settings)
