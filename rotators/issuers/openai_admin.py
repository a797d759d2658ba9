"""OpenAI project keys through the Admin API: found by the mask it shows, minted for a service account, deleted by id.

A key that a person made cannot be made by API: its successor is a service account's (setting `service_account`). There
is no pause either; what contains a key before its delete is a short expiry, which cannot be taken back, so it is not
offered as `disable`. https://platform.openai.com/docs/api-reference/project-api-keys
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from rotators.door import admin_token
from rotators.interface import Fact, KeyRef, Minted, ProviderError, State, Style, Trouble
from rotators.masks import only
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openai import OpenAI
    from openai.types.admin.organization.projects import ProjectAPIKey

    from rotators.interface import Settings
    from verifier.model import Credential

SKEW = timedelta(seconds=60)
_COMMON = ("sk-proj-", "sk-svcacct-", "sk-admin-", "sk-None-", "sk-")
_TIMEOUT = 20.0


class OpenAiAdmin:
    """Keys of an organisation's projects. The admin key is in `OPENAI_ADMIN_KEY` (or what `token_env` names).

    Settings: `project` (else every project is looked through), `service_account` (where a person's key is replaced),
    `expires_in_days` and `scopes` (by comma) of the new key: the API does not tell the old one's.
    """

    name = "openai_admin"
    kinds = ("openai",)
    style = Style.DISPLACE
    reversible = False
    propagation = timedelta(minutes=5)
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "locate": ("admin key: api.management.read",),
        "mint": ("admin key: api.management.write",),
        "retire": ("admin key: api.management.write",),
        "evidence": ("admin key: api.management.read",),
    }
    also_dies = "Nothing else dies: other keys of the same service account live on."

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings."""
        self._settings = settings

    def _client(self, leaked: str = "") -> OpenAI:
        import openai  # half a second; only who rotates at OpenAI pays it

        return openai.OpenAI(
            api_key="unused",
            admin_api_key=admin_token((self._settings.get("token_env") or "OPENAI_ADMIN_KEY",), leaked),
            timeout=_TIMEOUT,
            max_retries=0,  # a mint must not be repeated behind our back
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def preflight(self, ref: KeyRef) -> Sequence[Fact]:  # noqa: ARG002  # rights here are not by key
        """See that the admin key may list projects."""
        with self._client() as client, _errors("list the projects"):
            names = [p.name or p.id for p in client.admin.organization.projects.list(limit=100).data]
        return [Fact("admin", f"an admin key that sees {len(names)} projects")]

    def locate(self, old: Credential) -> KeyRef:
        """Find the one key whose mask stands for this one, in the project named or in all of them."""
        key = old.parts["secret"].reveal()
        with self._client(key) as client, _errors("list the project's keys"):
            projects = [self._settings["project"]] if self._settings.get("project") else self._projects(client)
            keys = [(project, k) for project in projects for k in self._keys(client, project)]
        return _ref(*only(keys, lambda pk: pk[1].redacted_value, key, _COMMON, "OpenAI"))

    @staticmethod
    def _projects(client: OpenAI) -> list[str]:
        return [p.id for p in client.admin.organization.projects.list(limit=100) if p.status != "archived"]

    @staticmethod
    def _keys(client: OpenAI, project: str) -> Iterator[ProjectAPIKey]:
        yield from client.admin.organization.projects.api_keys.list(project, limit=100, owner_project_access="any")

    def siblings(self, ref: KeyRef) -> Sequence[KeyRef]:
        """List the keys of the same service account or person."""
        project = ref.owner.partition("/")[0]
        with self._client() as client, _errors("list the project's keys"):
            keys = [_ref(project, key) for key in self._keys(client, project)]
        return [key for key in keys if key.owner == ref.owner]

    def mint(self, ref: KeyRef, marker: str) -> Minted:
        """Make a key for the same service account, named by the marker."""
        from openai import omit

        project, _, owner = ref.owner.partition("/")
        account = self._settings.get("service_account") or owner
        if account.startswith("user"):
            raise ProviderError(
                Trouble.REFUSED, "OpenAI makes no keys for people by API: name a `service_account` to take its place"
            )
        days = self._settings.get("expires_in_days", "")
        if days and not days.isdigit():
            raise ProviderError(Trouble.REFUSED, f"expires_in_days = {days!r} is not a number of days")
        scopes = [s.strip() for s in self._settings.get("scopes", "").split(",") if s.strip()]
        with self._client() as client, _errors(f"make a key for {account}"):
            made = client.admin.organization.projects.service_accounts.api_keys.create(
                account,
                project_id=project,
                name=marker,
                expires_in_seconds=int(days) * 86_400 if days else omit,
                scopes=scopes or omit,
            )
        new = KeyRef(made.id, f"{project}/{account}", created=_time(made.created_at), never_used=True, label=marker)
        return Minted(new, {"secret": Secret(made.value)})

    def orphans(self, ref: KeyRef, before: Sequence[str], since: datetime, marker: str) -> Sequence[KeyRef]:
        """List keys named by our marker, made since and never used."""
        account = self._settings.get("service_account")
        owner = f"{ref.owner.partition('/')[0]}/{account}" if account else ref.owner
        known = {*before, ref.id}
        return [
            key
            for key in self.siblings(KeyRef(ref.id, owner))
            if key.label == marker
            and key.id not in known
            and key.never_used
            and key.created is not None
            and key.created >= since - SKEW
        ]

    def disable(self, ref: KeyRef) -> None:
        """Refuse: OpenAI has no such thing as a key that rests."""
        raise ProviderError(Trouble.REFUSED, f"an OpenAI key cannot be disabled, only deleted ({ref.id})")

    enable = disable

    def retire(self, ref: KeyRef) -> None:
        """Delete exactly this key; one that is not there is done."""
        try:
            with self._client() as client, _errors(f"delete key {ref.id}"):
                client.admin.organization.projects.api_keys.delete(ref.id, project_id=ref.owner.partition("/")[0])
        except ProviderError as e:
            if e.trouble is not Trouble.GONE:
                raise

    def state(self, ref: KeyRef) -> State:
        """Say whether it is still listed and not expired."""
        try:
            with self._client() as client, _errors(f"read key {ref.id}"):
                key = client.admin.organization.projects.api_keys.retrieve(
                    ref.id, project_id=ref.owner.partition("/")[0]
                )
        except ProviderError as e:
            if e.trouble is Trouble.GONE:
                return State.GONE
            raise
        return _ref("", key).state

    def evidence(self, ref: KeyRef, since: datetime | None) -> Sequence[Fact]:  # noqa: ARG002  # the list has no history
        """Say whose it is, what else its owner holds and when it was last used."""
        keys = self.siblings(ref)
        mine = [key for key in keys if key.id == ref.id]
        used = mine[0].last_used if mine else None
        return [
            Fact("owner", ref.owner),
            Fact("name", mine[0].label if mine else "not listed any more"),
            Fact("last used", str(used) if used else "not on record"),
            Fact("keys of this owner", ", ".join(k.id for k in keys)),
        ]


def _ref(project: str, key: ProjectAPIKey) -> KeyRef:
    owner = key.owner.service_account or key.owner.user
    over = key.expires_at is not None and _time(key.expires_at) <= datetime.now(UTC)
    return KeyRef(
        key.id,
        f"{project}/{owner.id if owner else ''}",
        State.GONE if over else State.ACTIVE,
        _time(key.created_at),
        _time(key.last_used_at) if key.last_used_at else None,
        never_used=key.last_used_at is None,
        label=key.name or "",
    )


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn the client's errors into ours. Its texts quote what the server said, which may be the key: none passes."""
    import openai

    try:
        yield
    except openai.APIStatusError as e:
        troubles = {401: Trouble.DENIED, 403: Trouble.DENIED, 404: Trouble.GONE, 409: Trouble.CONFLICT}
        later = e.status_code in (408, 429) or e.status_code >= 500  # HTTP
        wait = e.response.headers.get("retry-after", "")
        after = timedelta(seconds=int(wait)) if wait.isascii() and wait.isdigit() else None
        trouble = Trouble.LATER if later else troubles.get(e.status_code, Trouble.REFUSED)
        raise ProviderError(trouble, f"cannot {what} at OpenAI: HTTP {e.status_code}", after) from None
    except openai.APIError:
        raise ProviderError(Trouble.LATER, f"cannot {what}: OpenAI gave no usable answer") from None


def make(settings: Settings) -> OpenAiAdmin:
    """Return the issuer for a playbook's slot."""
    return OpenAiAdmin(settings)
