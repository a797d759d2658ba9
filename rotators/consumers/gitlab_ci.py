"""CI/CD variables of a GitLab project or group: the value changes, how it is masked and protected does not.

The run is written into the variable's description in the same call, which is how `pushed` knows; a description of
somebody's own is kept in front of it. Settings: `project` or `group` (path or number), `scope` (environment scope,
`*`), `name`/`map` (see `rotators.handing`), `token_env` (`GITLAB_TOKEN`), and those of `rotators.door`.
https://docs.gitlab.com/api/project_level_variables/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rotators.door import Door, Route, admin_token, refusal
from rotators.handing import handed, names
from rotators.interface import Fact, ProviderError, Trouble
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Settings
    from rotators.step import Outcome
    from verifier.secret import Secret

_KEPT = ("variable_type", "protected", "masked", "raw", "environment_scope")
_NOTE = re.compile(r"\s*\[lapse [^\]]*\]\s*$")
_LONGEST = 255
_SELF = Route("GET", "/api/v4/personal_access_tokens/self")


class GitLabCi:
    """Variables of one project or group; they must be there already, so that nobody guesses how they are protected."""

    name = "gitlab_ci"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "push": ("scope api, role Maintainer (Owner for a group)",),
        "pushed": ("scope api, role Maintainer (Owner for a group)",),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; neither or both of `project` and `group` is `ProviderError(REFUSED)`."""
        self._settings = settings
        project, group = settings.get("project", ""), settings.get("group", "")
        if bool(project) == bool(group):
            raise ProviderError(Trouble.REFUSED, "gitlab_ci needs either a `project` or a `group`")
        names(settings)
        self._owner = project or group
        path = f"/api/v4/{'projects' if project else 'groups'}/{{owner}}/variables/{{key}}"
        self._get, self._put = Route("GET", path), Route("PUT", path)
        self._query = {"filter[environment_scope]": settings.get("scope") or "*"}
        self._door = Door("https://gitlab.com", (self._get, self._put, _SELF), settings)

    def preflight(self) -> Sequence[Fact]:
        """Read every variable, which only a maintainer may, and the token's scopes, of which `api` lets it write."""
        for name in names(self._settings):
            self._read(name)
        answer = self._door.call(_SELF, headers=self._headers())
        if not answer.good:  # a job's token, or a GitLab before 15.5
            return [
                Fact("consumer", f"the variables of {self._owner} are there; GitLab does not tell the token's scopes")
            ]
        scopes = [str(s) for s in answer.json().get("scopes") or ()]
        if "api" not in scopes:
            raise ProviderError(Trouble.DENIED, f"the GitLab token lacks the scope api, it has {', '.join(scopes)}")
        return [Fact("consumer", f"the variables of {self._owner} are there, and the token may write")]

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        """Change each variable's value and note the run; repeating is harmless."""
        values = handed(fields, self._settings)
        for name, value in values.items():
            before = self._read(name, value.reveal())
            note = f"{_NOTE.sub('', str(before.get('description') or ''))} [lapse {run}]".strip()
            body = {key: before[key] for key in _KEPT if key in before}
            answer = self._door.call(
                self._put,
                fill={"owner": self._owner, "key": name},
                query=self._query,
                headers=self._headers(value.reveal()),
                json={**body, "value": value.reveal(), "description": note[-_LONGEST:]},
            )
            if not answer.good:
                hint = (
                    "GitLab masks only values of one line and 8 characters or more" if answer.status == 400 else ""
                )  # HTTP
                raise refusal(answer, f"set variable {name} of {self._owner}", hint=hint)
        return Done(f"set {', '.join(values)} of {self._owner}", {"names": ",".join(values)})

    def pushed(self, run: str) -> bool | None:
        """Tell whether every variable's description names this run."""
        return all(
            str(self._read(n).get("description") or "").endswith(f"[lapse {run}]") for n in names(self._settings)
        )

    def _read(self, name: str, leaked: str = "") -> dict[str, Any]:
        fill = {"owner": self._owner, "key": name}
        answer = self._door.call(self._get, fill=fill, query=self._query, headers=self._headers(leaked))
        if not answer.good:
            raise refusal(answer, f"read variable {name} of {self._owner}", hint="is it there, in this scope?")
        found: dict[str, Any] = answer.json()
        return found

    def _headers(self, pushed: str = "") -> dict[str, str]:
        return {"PRIVATE-TOKEN": admin_token((self._settings.get("token_env") or "GITLAB_TOKEN",), pushed)}


def make(settings: Settings) -> GitLabCi:
    """Return the consumer for a playbook's slot."""
    return GitLabCi(settings)
