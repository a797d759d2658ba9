"""The AWS admin's session, and what AWS's errors mean to us.

The login is boto3's own: `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, SSO, an instance role, `AWS_ENDPOINT_URL`, … The settings
`profile`, `region`, `role` (an ARN to assume) and `endpoint` of a slot come first.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, cast

from rotators.interface import ProviderError, Settings, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    import boto3
    from botocore.client import BaseClient

_LOGIN = "log in again (`aws sso login`, or new credentials for the admin)"
_EXPIRED = ["ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken"]
_SAYS: dict[Trouble, str] = {
    Trouble.DENIED: """
        AccessDenied AccessDeniedException AuthFailure UnauthorizedOperation InvalidClientTokenId InvalidAccessKeyId
        UnrecognizedClientException MissingAuthenticationToken SignatureDoesNotMatch OptInRequired DecryptionFailure
        ExpiredToken ExpiredTokenException RequestExpired InvalidToken""",
    Trouble.LATER: """
        Throttling ThrottlingException ThrottledException TooManyRequestsException RequestLimitExceeded SlowDown
        RequestThrottled ServiceUnavailable ServiceUnavailableException InternalFailure InternalError ServiceFailure
        InternalServiceError InternalServiceErrorException RequestTimeout EntityTemporarilyUnmodifiable
        ConcurrentModification""",
    Trouble.FULL: "LimitExceeded LimitExceededException",
    Trouble.GONE: "NoSuchEntity NoSuchEntityException ResourceNotFoundException",
    Trouble.CONFLICT: "ResourceExistsException EntityAlreadyExists EntityAlreadyExistsException DeleteConflict",
}
_TROUBLE = {code: trouble for trouble, codes in _SAYS.items() for code in codes.split()}
_SERVER_ERROR = 500
_ROLE_SESSION = re.compile(r"arn:[^:]+:sts::\d*:assumed-role/([^/]+)/.+")


class AwsError(ProviderError):
    """AWS said no; `code` is AWS's own word for it."""

    def __init__(self, trouble: Trouble, message: str, code: str = "", retry_after: timedelta | None = None) -> None:
        """Take what a `ProviderError` takes, and AWS's code."""
        super().__init__(trouble, message, retry_after)
        self.code = code


def judge(code: str, status: int) -> Trouble:
    """Return what can be done about an AWS error code."""
    return _TROUBLE.get(code, Trouble.LATER if status >= _SERVER_ERROR else Trouble.REFUSED)


@contextmanager
def aws(doing: str) -> Iterator[None]:
    """Turn what botocore raises into an `AwsError` whose sentence begins with what we were doing."""
    from botocore import exceptions as e  # 0.3 s to import; only where there is an AWS call

    try:
        yield
    except e.ClientError as error:
        said = error.response.get("Error", {})
        code = said.get("Code", "unknown")
        text = " ".join(said.get("Message", "").split())[:240]
        trouble = judge(code, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        remedy = f"; {_LOGIN}" if code in _EXPIRED else ""
        wait = timedelta(seconds=5) if trouble is Trouble.LATER else None
        raise AwsError(trouble, f"AWS would not {doing}: {code}: {text}{remedy}", code, wait) from None
    except (e.NoCredentialsError, e.PartialCredentialsError, e.ProfileNotFound, e.CredentialRetrievalError) as error:
        raise AwsError(Trouble.DENIED, f"no AWS admin login to {doing}: {error}; {_LOGIN}") from None
    except (e.TokenRetrievalError, e.SSOError, e.UnauthorizedSSOTokenError) as error:
        raise AwsError(Trouble.DENIED, f"the AWS admin login is over: {error}; {_LOGIN}") from None
    except (e.HTTPClientError, e.ConnectionError) as error:  # time-outs and resets are among them
        reason = f"AWS cannot be reached to {doing}: {type(error).__name__}"
        raise AwsError(Trouble.LATER, reason, retry_after=timedelta(seconds=10)) from None
    except e.BotoCoreError as error:
        raise AwsError(Trouble.REFUSED, f"cannot {doing}: {error}") from None


class Aws:
    """One slot's way to AWS. `leaked` is checked against the admin's own key before any client is handed out."""

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; nothing is called yet."""
        self._settings = settings

    def client(
        self, service: str, *, leaked: str = "", quick: bool = False, mark: str = "", home: bool = False
    ) -> BaseClient:
        """Return a client of the admin; `quick` bounds each call to a few seconds, for evidence.

        `home` asks in the region where the partition keeps the record of its global services (IAM among them).

        `mark` is for calls that must not be sent twice: no retries, and the mark in the User-Agent, which CloudTrail
        keeps. An admin login that is the leaked key itself is `ProviderError(REFUSED)`.
        """
        from botocore.config import Config

        with aws("log in"):
            session = self._session
            self._refuse_leaked(leaked)
            config = Config(
                connect_timeout=3 if quick else 10,
                read_timeout=5 if quick else 30,
                retries={"total_max_attempts": 1 if quick or mark else 4, "mode": "standard"},
                user_agent_extra=f"lapse/{mark}" if mark else "lapse",
            )
            endpoint = self._settings.get("endpoint") or None
            region = _home(session.region_name) if home else None
            return cast("BaseClient", session.client(service, config=config, endpoint_url=endpoint, region_name=region))

    def _refuse_leaked(self, leaked: str) -> None:
        for session in (self._base, self._session):
            found = session.get_credentials()
            if leaked and found is not None and found.access_key == leaked:
                reason = "the AWS admin login is the leaked key itself: log in as somebody else"
                raise AwsError(Trouble.REFUSED, reason)

    @cached_property
    def _base(self) -> boto3.Session:
        import boto3

        settings = self._settings
        return boto3.Session(profile_name=settings.get("profile") or None, region_name=settings.get("region") or None)

    @cached_property
    def _session(self) -> boto3.Session:
        import boto3

        role = self._settings.get("role")
        if not role:
            return self._base
        sts = self._base.client("sts", endpoint_url=self._settings.get("endpoint") or None)
        got = sts.assume_role(RoleArn=role, RoleSessionName="lapse")["Credentials"]
        return boto3.Session(
            aws_access_key_id=got["AccessKeyId"],
            aws_secret_access_key=got["SecretAccessKey"],
            aws_session_token=got["SessionToken"],
            region_name=self._base.region_name,
        )


def _home(region: str | None) -> str:
    """https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-concepts.html#cloudtrail-concepts-global-service-events."""
    parts = {"us-gov": "us-gov-west-1", "cn": "cn-north-1"}
    return next((home for prefix, home in parts.items() if (region or "").startswith(f"{prefix}-")), "us-east-1")


def role_of(arn: str) -> str:
    """Return the role name behind an assumed-role session's ARN, empty for another ARN."""
    found = _ROLE_SESSION.fullmatch(arn)
    return found.group(1) if found else ""
