"""The configuration: flag > `LAPSE_*` > `--config` > `./lapse.toml` > XDG > default.

Values that need secrets are references; a literal that looks like a key is refused. Unknown keys are errors that
suggest the nearest known one.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from msgspec import Struct
from platformdirs import user_cache_path, user_config_path, user_data_path

from lapse.exits import Exit, Stop
from lapse.references import REFERENCE, looks_like_key, resolve
from lapse.sections import (
    DURATION,
    Duration,
    FleetConfig,
    MetricsConfig,
    NightlyConfig,
    NotifyConfig,
    OwnerRule,
    PolicyRule,
    TracesConfig,
)
from lapse.web.settings import ServeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from verifier.secret import Secret

_TABLES = frozenset({"providers", "sources", "policy", "owner"})
"""Sections that the environment cannot set: tables of tables and lists of tables."""


class LedgerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[ledger]`: where the record is kept and what seals the secrets in it.

    `url` is a path, `sqlite:///PATH`, `postgresql://USER@HOST/DATABASE` or a reference to one of these; `password` is a
    reference (empty: libpq's own ways, PGPASSWORD and ~/.pgpass).
    """

    url: str = ""
    password: str = ""
    key: str = ""
    retention: Duration = Duration("7d")


class ScopeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[scope]`: what is ours. With `mode = "ours"` nothing known to be somebody else's is called."""

    mode: Literal["all", "ours"] = "all"
    accounts: tuple[str, ...] = ()
    organisations: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


class VerifyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[verify]`: how long to doubt and how long to wait."""

    confirm_after: Duration = Duration("60s")
    wait: bool = True
    timeout: Duration = Duration("10s")
    retries: int = 2
    retry_budget: Duration = Duration("20s")


class BrakeConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[brake]`: when keys that turn dead together look like an outage."""

    many: int = 5
    share: float = 0.5
    few: int = 3
    apart: Duration = Duration("6h")


class EgressConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[egress]`: the one way out."""

    allow_private: tuple[str, ...] = ()
    proxy: str = ""
    no_proxy: str = ""
    ca_bundle: str = ""
    known_hosts: str = ""
    basic_auth: tuple[str, ...] = ()
    contact: str = ""


class CanaryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[canaries]`: AWS accounts whose keys are bait and are never called, besides the known services'."""

    aws_accounts: tuple[str, ...] = ()


class CatalogueConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[catalogue]`: providers of your own: folders of TOML, names of Python modules."""

    folders: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


class ProviderConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[providers.ID]`: overrides for one kind of key (or all of one vendor's)."""

    base_url: str = ""
    rate: float | None = None
    burst: int | None = None
    concurrency: int | None = None


class SourceConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.github]`, `[sources.gitlab]`: an API to pull findings from. `token` is a reference."""

    token: str = ""
    base_url: str = ""


class SourcesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources]`: the secret-scanning APIs that `lapse ingest github:…` and `gitlab:…` read."""

    github: SourceConfig = SourceConfig("env:GITHUB_TOKEN", "https://api.github.com")
    gitlab: SourceConfig = SourceConfig("env:GITLAB_TOKEN", "https://gitlab.com")


class RotateConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[rotate]`: where the engine keeps its tables, playbooks of your own, and what playbooks leave open.

    `engine` is a path, or a reference to a `postgresql://` URL (empty: a SQLite file beside the ledger); `modules` are
    Python modules of your own that playbooks may name; `wait` is how long `lapse rotate` stays for a wait.
    """

    engine: str = ""
    playbooks: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    wait: Duration = Duration("5m")
    set: dict[str, str] = {}


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set. Every key is explained in `config.example.toml`."""

    ledger: LedgerConfig = LedgerConfig()
    scope: ScopeConfig = ScopeConfig()
    verify: VerifyConfig = VerifyConfig()
    brake: BrakeConfig = BrakeConfig()
    egress: EgressConfig = EgressConfig()
    canaries: CanaryConfig = CanaryConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    sources: SourcesConfig = SourcesConfig()
    providers: dict[str, ProviderConfig] = {}
    rotate: RotateConfig = RotateConfig()
    nightly: NightlyConfig = NightlyConfig()
    policy: tuple[PolicyRule, ...] = ()
    owner: tuple[OwnerRule, ...] = ()
    notify: NotifyConfig = NotifyConfig()
    metrics: MetricsConfig = MetricsConfig()
    traces: TracesConfig = TracesConfig()
    serve: ServeConfig = ServeConfig()
    fleet: FleetConfig = FleetConfig()

    @property
    def ledger_url(self) -> str:
        """The ledger's place: a path, or a database address, which may hold a password and is never shown.

        What people see is `Ledger.where`.
        """
        url = self.ledger.url
        if not url:
            return str(data_dir() / "ledger.db")
        if REFERENCE.fullmatch(url):
            url = resolve(url, "ledger.url").reveal()
        if "://" not in url:
            return str(Path(url).expanduser())
        return _with_password(url, resolve(self.ledger.password, "ledger.password")) if self.ledger.password else url


def _with_password(url: str, password: Secret) -> str:
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if not at or ":" in user:
        raise Stop(
            "ledger.password needs a ledger.url with a user and no password: postgresql://USER@HOST/DB", Exit.USAGE
        )
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password.reveal(), safe='')}@{hosts}"))


def data_dir() -> Path:
    """Return where the ledger lives by default (XDG_DATA_HOME/lapse)."""
    return user_data_path("lapse")


def cache_dir() -> Path:
    """Return where compiled catalogues are kept (XDG_CACHE_HOME/lapse)."""
    return user_cache_path("lapse")


def load(path: Path | None = None, environ: dict[str, str] | None = None) -> Config:
    """Read the configuration; every mistake is a `Stop` that names file, line and remedy."""
    environ = dict(os.environ) if environ is None else environ
    file = path or found(environ)
    data = _read(file) if file else {}
    source = _Source(str(file), file.read_text("utf-8") if file else "", _from_environment(data, environ))
    config = _decode(data, source)
    _check(config, data, source)
    return config


@dataclass(frozen=True)
class _Source:
    """Where values came from: a file, and over it variables of the environment by the setting that each one is."""

    file: str
    text: str
    variables: Mapping[str, str]

    def place(self, steps: str) -> str:
        """Return what a mistake at `steps` (`.scope.mode`) is to be blamed on: a variable, or a line of the file."""
        from verifier.specfile import line_of  # noqa: PLC0415  # only when something is wrong

        setting = re.match(r"\.\w+\.\w+", steps)
        variable = self.variables.get(setting[0]) if setting else None
        return variable or f"{self.file}:{line_of(self.text, steps)}"


def found(environ: Mapping[str, str]) -> Path | None:
    """Return the file that is read where `--config` names none, if there is one."""
    if named := environ.get("LAPSE_CONFIG"):
        return Path(named)
    for place in (Path("lapse.toml"), user_config_path("lapse") / "config.toml"):
        if place.is_file():
            return place
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as e:
        raise Stop(f"cannot read the config {file}: {e.strerror}; name another with --config", Exit.USAGE) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise Stop(f"{file}: not TOML: {e}", Exit.USAGE) from None


def _from_environment(data: dict[str, Any], environ: dict[str, str]) -> dict[str, str]:
    """Lay `LAPSE_SECTION_KEY` over the file: `LAPSE_SCOPE_MODE=ours` is `[scope] mode = "ours"`.

    Return the variables that were read, by setting: `.scope.mode` → `LAPSE_SCOPE_MODE`.
    """
    read = {}
    for name, kind in get_type_hints(Config).items():
        if name in _TABLES:
            continue
        for key, hint in get_type_hints(kind).items():
            variable = f"LAPSE_{name}_{key}".upper()
            section = data.setdefault(name, {}) if variable in environ else None
            if isinstance(section, dict):  # else the file has something else there, which is said later
                section[key] = _typed(environ[variable], hint)
                read[f".{name}.{key}"] = variable
    return read


def idle_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that look as if they set something (`LAPSE_SCOPE_MOOD`) and set nothing, in order."""
    hints = {name: kind for name, kind in get_type_hints(Config).items() if name not in _TABLES}
    read = {f"LAPSE_{name}_{key}".upper() for name, kind in hints.items() for key in get_type_hints(kind)}
    heads = tuple(f"LAPSE_{name}_".upper() for name in hints)
    return sorted(v for v in environ if v.startswith(heads) and v not in read)


def _typed(value: str, hint: object) -> object:
    if hint in {int, float, bool}:
        try:
            return msgspec.convert(value, hint, strict=False)
        except msgspec.ValidationError:
            return value
    return [v.strip() for v in value.split(",") if v.strip()] if "tuple" in str(hint) else value


def _decode(data: dict[str, Any], source: _Source) -> Config:
    _durations(data)
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as e:
        said = str(e)
        at = re.search(r" - at `\$(.*?)`$", said)
        steps = at.group(1) if at else ""
        said = re.sub(r" - at `.*`$", "", said)
        unknown = re.search(r"unknown field `(.+)`", said)
        if unknown:
            raise _unknown(unknown.group(1), steps, source) from None
        raise Stop(f"{source.place(steps)}: {steps.lstrip('.')}: {said}", Exit.USAGE) from None


def _unknown(key: str, steps: str, source: _Source) -> Stop:
    known = [f.encode_name for f in msgspec.structs.fields(_struct_at(steps))]
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(known)}"
    return Stop(f"{source.place(f'{steps}.{key}')}: unknown key `{key}`{hint}", Exit.USAGE)


def _struct_at(steps: str) -> type[Struct]:
    """Return the type that `steps` (`.nightly.source[0]`) leads to."""
    here: Any = Config
    for name in re.findall(r"\.([^.\[\]]+)", steps):
        here = _inner(_hints(here)[name])
    return here if isinstance(here, type) and issubclass(here, Struct) else Config


def _inner(hint: Any) -> Any:  # noqa: ANN401  # a type, a generic alias or a union
    """Return what a tuple, a table or an optional value holds; anything else as it is."""
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    if get_origin(hint) is tuple or isinstance(hint, UnionType):
        return get_args(hint)[0]
    return hint


def _hints(kind: type[Struct]) -> dict[str, Any]:
    """Return the types of a struct's fields by the names that a file has them under."""
    found = get_type_hints(kind)
    return {f.encode_name: found[f.name] for f in msgspec.structs.fields(kind)}


def _durations(data: dict[str, Any], kind: type[Struct] = Config) -> None:
    """Let durations be written as plain strings."""
    for key, hint in _hints(kind).items():
        value, inner = data.get(key), _inner(hint)
        if inner is Duration and isinstance(value, str):
            data[key] = {"text": value}
        elif isinstance(inner, type) and issubclass(inner, Struct) and inner is not Duration:
            several = isinstance(value, dict) and get_origin(hint) is dict
            found = list(value.values()) if isinstance(value, dict) and several else value
            found = found if isinstance(found, list) else [value]
            for table in found:
                if isinstance(table, dict):
                    _durations(table, inner)


def _check(config: Config, data: dict[str, Any], source: _Source) -> None:
    def stop(steps: str, said: str) -> Stop:
        return Stop(f"{source.place(steps)}: {said}", Exit.USAGE)

    for steps, value in _strings(data, ""):
        if looks_like_key(value):
            said = "looks like a key; write a reference: env:NAME, file:PATH, keyring:SERVICE/NAME or vault:PATH#FIELD"
            raise stop(steps, f"{steps.lstrip('.')} {said}")
        if steps.endswith(".text") and not DURATION.fullmatch(value):
            where = steps.removesuffix(".text")
            raise stop(where, f"{where.lstrip('.')} is no duration; write 90s, 10m, 6h or 30d")
    if _tells_password(config.ledger.url):
        said = (
            'ledger.url holds a password; leave it out and set ledger.password = "env:NAME" (or PGPASSWORD, ~/.pgpass)'
        )
        raise stop(".ledger.url", said)
    for network in config.egress.allow_private:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            said = f"`{network}` is no network; write 10.1.0.0/16 or 127.0.0.1/32"
            raise stop(".egress.allow_private", said) from None
    for kind, override in config.providers.items():
        if override.base_url and not re.match(r"https?://[^/@]+", override.base_url):
            said = "base_url must be https://host, or http:// on a network of egress.allow_private"
            raise stop(f".providers.{kind}.base_url", said)
    _check_references(config, stop)


def _tells_password(url: str) -> bool:
    parts = url.partition("://")[2].partition("?")
    return ":" in parts[0].partition("/")[0].rpartition("@")[0] or "password=" in parts[2]


def _check_references(config: Config, stop: Callable[[str, str], Stop]) -> None:
    for steps, value in _references(config):
        if value and not REFERENCE.fullmatch(value):
            said = "must be a reference, for the address holds a secret: env:NAME, file:PATH, keyring: or vault:"
            raise stop(steps, f"{steps.lstrip('.')} {said}")


def _references(config: Config) -> list[tuple[str, str]]:
    """Return what must be a reference and where it stands."""
    found = [(".notify.urls", u) for u in config.notify.urls] + [(".notify.urgent", u) for u in config.notify.urgent]
    found += [(f".owner[{i}].notify", u) for i, o in enumerate(config.owner) for u in o.notify]
    found += [(f".serve.hooks.{name}", reference) for name, reference in config.serve.hooks.items()]
    found.append((".serve.oidc.client_secret", config.serve.oidc.client_secret))
    found.append((".ledger.password", config.ledger.password))
    return [*found, (".notify.ticket.token", config.notify.ticket.token)]


def _strings(value: object, steps: str) -> list[tuple[str, str]]:
    match value:
        case str():
            return [(steps, value)]
        case dict():
            return [x for k, v in value.items() for x in _strings(v, f"{steps}.{k}")]
        case list():
            return [
                x for i, v in enumerate(value) for x in _strings(v, f"{steps}[{i}]" if isinstance(v, dict) else steps)
            ]
        case _:
            return []
