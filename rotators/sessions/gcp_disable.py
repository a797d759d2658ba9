"""End the access tokens of a leaked Google key: disable its service account, which refuses tokens fetched before.

This is for an emergency: every key of the account refuses while it is disabled, the new one among them, so it is lifted
before that one is looked at. Tokens live for an hour; enabled again before that, they may work again, so `lift` waits
for it, unless the setting `lift` is `now`: then consumers work an hour sooner, and whoever holds such a token too.
https://cloud.google.com/iam/docs/service-accounts-disable-enable
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from rotators.clouds.google import Google, key_file, lacking
from rotators.clouds.rest import Nothing
from rotators.door import Route
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done, Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.clouds.rest import Service
    from rotators.interface import KeyRef, Settings
    from rotators.step import Outcome
    from verifier.model import Credential

_ACCOUNT = "/v1/projects/-/serviceAccounts/{email}"
_GET, _TEST = Route("GET", _ACCOUNT), Route("POST", _ACCOUNT + ":testIamPermissions")
_DISABLE, _ENABLE = Route("POST", _ACCOUNT + ":disable"), Route("POST", _ACCOUNT + ":enable")
_TOKENS = timedelta(hours=1)
_OVER, _NOW = "over", "now"


class _State(Struct, frozen=True):
    disabled: bool = False


class GcpDisable:
    """The service account of the leaked key, off and on."""

    name = "gcp_disable"
    reversible = True
    stops_new = True
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "kill": ("iam.serviceAccounts.get", "iam.serviceAccounts.disable"),
        "undo": ("iam.serviceAccounts.enable",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._google = Google(settings)
        if (when := settings.get("lift") or _OVER) not in (_OVER, _NOW):
            raise ProviderError(Trouble.REFUSED, f"lift = {when!r} is neither {_OVER} nor {_NOW}")
        self._at_once = when == _NOW

    def preflight(self, old: Credential, ref: KeyRef) -> Sequence[Fact]:
        """Ask which rights the admin has on the account."""
        wanted = [right for rights in self.permissions.values() for right in rights]
        if missing := lacking(self._iam(old), _TEST, ref.owner, {"email": ref.owner}, wanted):
            reason = f"the admin lacks {', '.join(missing)} on {ref.owner}: grant roles/iam.serviceAccountAdmin"
            raise ProviderError(Trouble.DENIED, reason)
        return [Fact("sessions", f"the admin may disable and enable {ref.owner}")]

    def shut(self, old: Credential, ref: KeyRef) -> bool:
        """Say whether the account is disabled."""
        said = self._iam(old).ask(_GET, _State, f"describe {ref.owner}", fill={"email": ref.owner})
        return said.disabled

    def lift(self, old: Credential, ref: KeyRef, killed: datetime, moment: datetime) -> Outcome:
        """Enable the account once the tokens from before are over."""
        _ = moment
        over = killed + _TOKENS
        if not self._at_once and datetime.now(UTC) < over:
            said = f"tokens that the old key fetched live until {over:%H:%M} UTC, if {ref.owner} were enabled sooner"
            return Waiting("time", over, said)
        return self.undo(old, ref)

    def kill(self, old: Credential, ref: KeyRef, moment: datetime) -> Outcome:
        """Disable the account; repeating is harmless.

        `possible_until` is when the last token from before `moment` is over, should the account be enabled sooner.
        """
        iam = self._iam(old)
        said = iam.ask(_GET, _State, f"describe {ref.owner}", fill={"email": ref.owner})
        if not said.disabled:
            iam.ask(_DISABLE, Nothing, f"disable {ref.owner}", fill={"email": ref.owner}, json={})
        output = {"possible_until": (moment + _TOKENS).isoformat()}
        return Done(f"{ref.owner} is disabled: its keys and tokens refuse", output)

    def undo(self, old: Credential, ref: KeyRef) -> Outcome:
        """Enable the account again; repeating is harmless."""
        self._iam(old).ask(_ENABLE, Nothing, f"enable {ref.owner}", fill={"email": ref.owner}, json={})
        return Done(f"{ref.owner} is enabled again")

    def _iam(self, old: Credential) -> Service:
        return self._google.service("iam", (_GET, _TEST, _DISABLE, _ENABLE), leaked=key_file(old).private_key_id)


def make(settings: Settings) -> GcpDisable:
    """Return the session killer for a playbook's slot."""
    return GcpDisable(settings)
