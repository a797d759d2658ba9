"""Secrets Manager's versions and staging labels: what the store and the consumer of one secret share.

Every version that Lapse writes carries the label `lapse/RUN`, put on in the very call that writes it. `AWSCURRENT`
moves in a second call that names the version it must be taken from, which is Secrets Manager's own compare-and-set.
https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from rotators.clouds.aws import Aws, AwsError, aws
from rotators.clouds.aws_evidence import preflight
from rotators.clouds.fields import pack, unpack
from rotators.interface import ProviderError, Settings, Stored, Trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_secretsmanager.type_defs import DescribeSecretResponseTypeDef, TagTypeDef

    from rotators.interface import Fact
    from verifier.secret import Secret

CURRENT = "AWSCURRENT"
_LABEL = "lapse/"
_MARKED = "lapse-run"
_WINDOW = 7


class Versions:
    """One secret; `name` is its name or ARN."""

    def __init__(self, settings: Settings, stage: str = CURRENT) -> None:
        """Take the slot's settings (`secret`, `format`, `field`, those of `rotators.clouds.aws`)."""
        self._way = Aws(settings)
        self._settings = settings
        self.stage = stage
        self.name = settings.get("secret", "")
        if not self.name:
            raise ProviderError(Trouble.REFUSED, "the slot needs `secret`: the name or ARN of a Secrets Manager secret")

    def _client(self) -> SecretsManagerClient:
        return cast("SecretsManagerClient", self._way.client("secretsmanager"))

    def preflight(self, actions: Sequence[str]) -> list[Fact]:
        """Have IAM simulate these rights of the admin; one that is surely missing is `ProviderError(DENIED)`."""
        return preflight(self._way, sorted(set(actions)))

    def labels(self) -> Mapping[str, list[str]] | None:
        """Return version → labels, `None` when there is no such secret or we have scheduled its deletion.

        One whose deletion somebody else scheduled is `ProviderError(REFUSED)`.
        """
        said = self._describe()
        tags = _tags(said)
        if said is None or (said.get("DeletedDate") is not None and _MARKED in tags):
            return None
        if said.get("DeletedDate") is not None:
            raise ProviderError(Trouble.REFUSED, f"secret {self.name} is scheduled for deletion: restore it first")
        found = said.get("VersionIdsToStages", {})
        if len(found) == 1 and _MARKED in tags:
            return {version: [*labels, _LABEL + tags[_MARKED]] for version, labels in found.items()}
        return found

    def _describe(self) -> DescribeSecretResponseTypeDef | None:
        try:
            with aws(f"describe secret {self.name}"):
                return self._client().describe_secret(SecretId=self.name)
        except AwsError as e:
            if e.trouble is Trouble.GONE:
                return None
            raise

    def staged(self) -> Stored | None:
        """Return the version that carries the stage and the run that wrote it."""
        for version, labels in (self.labels() or {}).items():
            if self.stage in labels:
                runs = [label.removeprefix(_LABEL) for label in labels if label.startswith(_LABEL)]
                return Stored(version, runs[0] if runs else "")
        return None

    def read(self, version: str | None = None) -> Mapping[str, Secret]:
        """Read a version's fields, by default the staged one's."""
        with aws(f"read secret {self.name}"):
            if version is None:
                said = self._client().get_secret_value(SecretId=self.name, VersionStage=self.stage)
            else:
                said = self._client().get_secret_value(SecretId=self.name, VersionId=version)
        return unpack(said.get("SecretString", ""), self._settings)

    def write(self, fields: Mapping[str, Secret], run: str, over: str | None) -> str:
        """Add a version that carries the run's label; fields of version `over` that `fields` lacks are kept.

        Secrets Manager puts `AWSCURRENT` on it only when it is the first one. A secret that is not there is created
        with the value and a tag that names the run.
        """
        text = pack(fields, self._settings, self.read(over) if over is not None else {})
        token = str(uuid4())
        if over is None and self.labels() is None:
            return self._create(text, token, run)
        with aws(f"write secret {self.name}"):
            self._client().put_secret_value(
                SecretId=self.name, SecretString=text, ClientRequestToken=token, VersionStages=[_LABEL + run]
            )
        return token

    def _create(self, text: str, token: str, run: str) -> str:
        """Create the secret; the tag says whose the first version is until its label does."""
        client = self._client()
        tags: list[TagTypeDef] = [{"Key": _MARKED, "Value": run}]
        with aws(f"create secret {self.name}"):
            version = client.create_secret(Name=self.name, SecretString=text, ClientRequestToken=token, Tags=tags)[
                "VersionId"
            ]
        with aws(f"label secret {self.name}"):
            client.update_secret_version_stage(SecretId=self.name, VersionStage=_LABEL + run, MoveToVersionId=version)
        return version

    def move(self, to: str, expected: str | None) -> None:
        """Move the stage from `expected` to `to`; when it is elsewhere, `ProviderError(CONFLICT)` and nothing moves."""
        words = {"RemoveFromVersionId": expected} if expected is not None else {}
        try:
            with aws(f"move {self.stage} of secret {self.name}"):
                self._client().update_secret_version_stage(
                    SecretId=self.name, VersionStage=self.stage, MoveToVersionId=to, **words
                )
        except AwsError as e:
            if e.code in ("InvalidParameterException", "ResourceNotFoundException"):
                raise self.conflict() from None
            raise

    def drop_label(self, version: str, run: str) -> None:
        """Take the run's label off a version that lost, so that AWS clears it away."""
        with suppress(ProviderError), aws(f"clear away a version of {self.name}"):
            self._client().update_secret_version_stage(
                SecretId=self.name, VersionStage=_LABEL + run, RemoveFromVersionId=version
            )

    def delete(self) -> None:
        """Schedule the deletion of a secret that Lapse created, which can be taken back for seven days."""
        said = self._describe()
        if _MARKED not in _tags(said):
            reason = f"secret {self.name} was there, empty, before us: empty or delete it by hand"
            raise ProviderError(Trouble.REFUSED, reason)
        with aws(f"delete secret {self.name}"):
            self._client().delete_secret(SecretId=self.name, RecoveryWindowInDays=_WINDOW)

    def conflict(self) -> ProviderError:
        """Return the error for a lost compare-and-set."""
        reason = f"somebody else changed secret {self.name} meanwhile: look at its {self.stage} version before going on"
        return ProviderError(Trouble.CONFLICT, reason)


def _tags(said: DescribeSecretResponseTypeDef | None) -> dict[str, str]:
    found = said.get("Tags", []) if said is not None else []
    return {tag.get("Key", ""): tag.get("Value", "") for tag in found}
