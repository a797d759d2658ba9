"""Secrets of GitHub Actions: sealed for the repository's own key here, so only GitHub's runners open them.

Settings: `repository` (`owner/name`), `environment` (else the repository's own secrets), `name`/`map` (see
`rotators.handing`), `token_env` (`GH_TOKEN`, else `GITHUB_TOKEN`), and those of `rotators.door`.
https://docs.github.com/en/rest/actions/secrets
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

from rotators.door import Door, Route, admin_token, refusal
from rotators.handing import handed, names
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.door import Answer
    from rotators.interface import Settings
    from rotators.step import Outcome
    from verifier.secret import Secret

_REPO = "/repos/{owner}/{repository}/actions/secrets"
_ENVIRONMENT = "/repos/{owner}/{repository}/environments/{environment}/secrets"
_NAME = re.compile(r"(?!GITHUB_)[A-Z_][A-Z0-9_]*", re.IGNORECASE)


class GitHubActions:
    """Secrets of one repository or of one of its environments."""

    name = "github_actions"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "push": ("repository permission Secrets: write (Environments: write for an environment)",)
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; what cannot be a repository or a secret's name is `ProviderError(REFUSED)`."""
        self._settings = settings
        owner, _, repository = settings.get("repository", "").partition("/")
        if not owner or not repository or "/" in repository:
            raise ProviderError(Trouble.REFUSED, "github_actions needs a `repository` of the form owner/name")
        for name in names(settings):
            if not _NAME.fullmatch(name):
                raise ProviderError(Trouble.REFUSED, f"{name!r} cannot be the name of a GitHub Actions secret")
        environment = settings.get("environment", "")
        base = _ENVIRONMENT if environment else _REPO
        self._fill = {"owner": owner, "repository": repository, "environment": environment}
        self._key, self._put = Route("GET", f"{base}/public-key"), Route("PUT", base + "/{name}")
        self._door = Door("https://api.github.com", (self._key, self._put), settings)

    def preflight(self) -> Sequence[Fact]:
        """Read the public key that values are sealed for: the token works, and repository and environment are there.

        A classic token shows its scopes and must have `repo`; of a fine-grained one GitHub tells nothing beforehand.
        """
        answer = self._public_key(self._headers(self._token()))
        scopes = answer.headers.get("x-oauth-scopes")
        if scopes is not None and "repo" not in {s.strip() for s in scopes.split(",")}:
            raise ProviderError(Trouble.DENIED, f"the GitHub token lacks the scope repo, it has {scopes or 'none'}")
        told = "its scope repo lets it write" if scopes is not None else "GitHub does not tell whether it may write"
        return [Fact("consumer", f"the token sees the secrets of {self._settings['repository']}; {told}")]

    def _token(self) -> str:
        named = self._settings.get("token_env")
        return admin_token((named,) if named else ("GH_TOKEN", "GITHUB_TOKEN"))

    @staticmethod
    def _headers(token: str) -> Mapping[str, str]:
        return {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def _public_key(self, headers: Mapping[str, str]) -> Answer:
        answer = self._door.call(self._key, fill=self._fill, headers=headers)
        if not answer.good:
            raise refusal(answer, f"read the public key of {self._settings['repository']}")
        return answer

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:  # noqa: ARG002  # GitHub keeps no note of ours
        """Seal each value and set it; repeating is harmless."""
        values = handed(fields, self._settings)
        token = self._token()
        if any(value.reveal() == token for value in values.values()):
            raise ProviderError(Trouble.DENIED, "the token that would push is the one that is pushed: use another one")
        headers = self._headers(token)
        key = self._public_key(headers).json()
        for name, value in values.items():
            sealed = seal(str(key["key"]), value.reveal())
            body = {"encrypted_value": sealed, "key_id": str(key["key_id"])}
            answer = self._door.call(self._put, fill={**self._fill, "name": name}, headers=headers, json=body)
            if not answer.good:
                raise refusal(answer, f"set secret {name} of {self._settings['repository']}")
        return Done(f"set {', '.join(values)} of {self._settings['repository']}", {"names": ",".join(values)})

    def pushed(self, run: str) -> bool | None:  # noqa: ARG002  # see below
        """Return `None`: GitHub shows neither the value nor anything of ours beside it."""
        return None


def seal(key: str, value: str) -> str:
    """Seal a value (libsodium's sealed box) for a public key in Base64; the result is Base64 too."""
    try:
        from nacl.public import PublicKey, SealedBox
    except ImportError:
        raise ProviderError(Trouble.REFUSED, "github_actions needs the package PyNaCl: install it") from None
    return b64encode(SealedBox(PublicKey(b64decode(key))).encrypt(value.encode())).decode()


def make(settings: Settings) -> GitHubActions:
    """Return the consumer for a playbook's slot."""
    return GitHubActions(settings)
