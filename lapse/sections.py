"""The config sections of the nightly job: sources, whose key is whose, what to do, whom to tell, what to measure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Literal, TypeAlias

from msgspec import Struct, field

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(Struct, frozen=True):
    """A span written `90s`, `10m`, `6h` or `30d`."""

    text: str

    @property
    def seconds(self) -> float:
        """The span in seconds."""
        m = DURATION.fullmatch(self.text)
        return float(m.group(1)) * _UNITS[m.group(2)] if m else 0.0

    @property
    def delta(self) -> timedelta:
        """The span as a timedelta."""
        return timedelta(seconds=self.seconds)


class SourceRule(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[nightly.source]]`: where reports come from: an address (`from`) or a scanner to run (`command`).

    `from` is a path or glob, `s3://`, `gs://`, `azblob://ACCOUNT/CONTAINER/PREFIX`, `github:…` or `gitlab:…`.
    `command` is run without a shell; its report is its stdout, or `file`. With an exit code outside `codes`, what it
    wrote is taken as a part of a scan: nothing is marked as removed.
    """

    name: str = ""
    from_: str = field(default="", name="from")
    command: tuple[str, ...] = ()
    file: str = ""
    codes: tuple[int, ...] = (0, 1, 183, 200, 205)
    timeout: Duration = Duration("2h")
    as_: str = field(default="", name="as")
    origin: str = ""
    source: str = ""
    partial: bool = False
    endpoint: str = ""

    def __post_init__(self) -> None:
        """Refuse a source that is nothing, or two things."""
        if bool(self.from_) == bool(self.command):
            raise ValueError("write either `from` (an address) or `command` (a scanner to run)")
        if self.file and not self.command:
            raise ValueError("`file` is where a `command` leaves its report; for a file to read, write `from`")

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return self.name or self.from_ or self.command[0]


class NightlyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[nightly]`: sources, what is due, how much a night, what is written in the morning."""

    source: tuple[SourceRule, ...] = ()
    deadline: Duration | None = None
    budget: int = 0
    budgets: dict[str, int] = {}
    retry_first: Duration = Duration("5m")
    retry_most: Duration = Duration("1d")
    dead_again: Duration = Duration("7d")
    dead_later: Duration = Duration("30d")
    round: Duration = Duration("12h")
    sla: Duration = Duration("7d")
    reports: tuple[str, ...] = ()


Verdicts: TypeAlias = Literal["live", "dead", "undecided"]
Exposure: TypeAlias = Literal["public", "private", "unknown"]
Privileges: TypeAlias = Literal["admin", "write", "read", "unknown"]
Act: TypeAlias = Literal["nothing", "notify", "ticket", "rotate"]


class PolicyRule(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[policy]]`: which keys, and what to do. What is left out matches everything; the first rule that fits fires.

    `approvals` is how many people must agree to a rotation beyond what its playbook asks; it never lowers that.
    """

    action: Act
    name: str = ""
    provider: tuple[str, ...] = ()
    verdict: tuple[Verdicts, ...] = ("live",)
    exposure: tuple[Exposure, ...] = ()
    owner: tuple[str, ...] = ()
    privilege: tuple[Privileges, ...] = ()
    older: Duration | None = None
    younger: Duration | None = None
    removed: bool | None = None
    playbook: str = ""
    mode: Literal["graceful", "emergency"] = "graceful"
    approvals: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        """Refuse a rule that cannot be carried out."""
        if self.action == "rotate" and self.verdict != ("live",):
            raise ValueError("only live keys are rotated; leave `verdict` out")
        if self.action != "rotate" and (self.playbook or self.mode != "graceful" or self.approvals != 1):
            raise ValueError('`playbook`, `mode` and `approvals` go with action = "rotate" only')


class OwnerRule(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[owner]]`: whose keys these are, by where they were found; patterns as in a shell (`acme/pay-*`).

    `codeowners` is a checkout whose CODEOWNERS names the owners of the paths of `repositories`; `name` is then who
    owns what it leaves open. `notify` are more targets, for this owner's keys alone.
    """

    name: str = ""
    images: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    codeowners: str = ""
    sla: Duration | None = None
    notify: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an owner without a name or without a way to be told."""
        if not self.name and not self.codeowners:
            raise ValueError("an owner needs a `name`, or `codeowners = CHECKOUT` to read names from")
        if self.codeowners and not self.repositories:
            raise ValueError("`codeowners` needs `repositories`: the names under which reports show that checkout")
        told = (self.images, self.labels, self.repositories, self.paths, self.authors, self.accounts)
        if not any(told):
            raise ValueError("an owner needs images, labels, repositories, paths, authors or accounts")


class TicketConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[notify.ticket]`: where issues are opened. `token` is a reference; `user` goes with Jira Cloud only."""

    kind: Literal["", "jira", "github"] = ""
    base_url: str = ""
    project: str = ""
    user: str = ""
    token: str = ""
    issue_type: str = "Task"
    labels: tuple[str, ...] = ("lapse",)

    def __post_init__(self) -> None:
        """Refuse half a tracker."""
        if self.kind and not (self.project and self.token):
            raise ValueError("needs `project` (Jira: its key; GitHub: OWNER/REPO) and `token` (a reference)")
        if self.kind == "jira" and not self.base_url:
            raise ValueError('needs base_url = "https://YOUR.atlassian.net"')


class NotifyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[notify]`: who is told. `urls` are references to Apprise addresses: they hold secrets."""

    urls: tuple[str, ...] = ()
    urgent: tuple[str, ...] = ()
    digest: bool = True
    lines: int = 20
    ticket: TicketConfig = TicketConfig()


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[metrics]`: the file that Prometheus' node exporter collects."""

    textfile: str = ""


class TracesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[traces]`: where spans of nights, chunks and calls go, by OTLP over HTTP. Needs the extra `lapse[otel]`."""

    endpoint: str = ""


class FleetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[fleet]`: many workers on one PostgreSQL. `url` is its address or, with a password in it, a reference to that.

    `chunks` is how many chunks a worker has under way at once, each of another vendor; `keys` the most keys in one.
    """

    url: str = ""
    chunks: int = 64
    keys: int = 2000

    def __post_init__(self) -> None:
        """Refuse a fleet that could do nothing, and a password in the clear."""
        if self.chunks < 1 or self.keys < 1:
            raise ValueError("`chunks` and `keys` must be 1 or more")
        if "@" in self.url and ":" in self.url.partition("://")[2].rpartition("@")[0]:
            raise ValueError("`url` holds a password: write a reference to it (env:NAME, file:PATH, keyring:, vault:)")
