"""The configuration: flag > `LAPSE_*` > `--config` > `./lapse.toml` > XDG > default.

Values that need secrets are references; a literal that looks like a key is refused. Unknown keys are errors that
suggest the nearest known one.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_type_hints

import msgspec
from msgspec import Struct
from platformdirs import user_cache_path, user_config_path, user_data_path

from lapse.exits import Exit, Stop
from lapse.references import looks_like_key

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(Struct, frozen=True):
    """A span written `90s`, `10m`, `6h` or `30d`."""

    text: str

    @property
    def seconds(self) -> float:
        """The span in seconds."""
        m = _DURATION.fullmatch(self.text)
        return float(m.group(1)) * _UNITS[m.group(2)] if m else 0.0

    @property
    def delta(self) -> timedelta:
        """The span as a timedelta."""
        return timedelta(seconds=self.seconds)


class LedgerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[ledger]`: where the record is kept and what seals the secrets in it."""

    url: str = ""
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

    @property
    def ledger_url(self) -> str:
        """The ledger's place: a path, or a database URL."""
        return str(Path(self.ledger.url).expanduser()) if self.ledger.url else str(data_dir() / "ledger.db")


def data_dir() -> Path:
    """Return where the ledger lives by default (XDG_DATA_HOME/lapse)."""
    return user_data_path("lapse")


def cache_dir() -> Path:
    """Return where compiled catalogues are kept (XDG_CACHE_HOME/lapse)."""
    return user_cache_path("lapse")


def load(path: Path | None = None, environ: dict[str, str] | None = None) -> Config:
    """Read the configuration; every mistake is a `Stop` that names file, line and remedy."""
    environ = dict(os.environ) if environ is None else environ
    file = path or _found(environ)
    data = _read(file) if file else {}
    _from_environment(data, environ)
    text = file.read_text("utf-8") if file else ""
    config = _decode(data, str(file or "the environment"), text)
    _check(config, data, str(file or "the environment"), text)
    return config


def _found(environ: dict[str, str]) -> Path | None:
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


def _from_environment(data: dict[str, Any], environ: dict[str, str]) -> None:
    """Lay `LAPSE_SECTION_KEY` over the file: `LAPSE_SCOPE_MODE=ours` is `[scope] mode = "ours"`."""
    for name, kind in get_type_hints(Config).items():
        if name in {"providers", "sources"}:
            continue
        for key, hint in get_type_hints(kind).items():
            value = environ.get(f"LAPSE_{name}_{key}".upper())
            if value is not None:
                data.setdefault(name, {})[key] = _typed(value, hint)


def _typed(value: str, hint: object) -> object:
    if hint in {int, float, bool}:
        try:
            return msgspec.convert(value, hint, strict=False)
        except msgspec.ValidationError:
            return value
    return [v.strip() for v in value.split(",") if v.strip()] if "tuple" in str(hint) else value


def _decode(data: dict[str, Any], name: str, text: str) -> Config:
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
            raise _unknown(unknown.group(1), steps, name, text) from None
        raise Stop(f"{name}:{_line(text, steps)}: {steps.lstrip('.')}: {said}", Exit.USAGE) from None


def _unknown(key: str, steps: str, name: str, text: str) -> Stop:
    section = steps.lstrip(".").partition(".")[0]
    known = [*get_type_hints(get_type_hints(Config)[section])] if section and section != "providers" else []
    if section == "providers":
        known = list(ProviderConfig.__struct_fields__)
    known = known or list(Config.__struct_fields__)
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(known)}"
    return Stop(f"{name}:{_line(text, f'{steps}.{key}')}: unknown key `{key}`{hint}", Exit.USAGE)


def _durations(data: dict[str, Any]) -> None:
    """Let durations be written as plain strings."""
    for section, kind in get_type_hints(Config).items():
        table = data.get(section)
        if section in {"providers", "sources"} or not isinstance(table, dict):
            continue
        for key, hint in get_type_hints(kind).items():
            if hint is Duration and isinstance(table.get(key), str):
                table[key] = {"text": table[key]}


def _check(config: Config, data: dict[str, Any], name: str, text: str) -> None:
    def stop(steps: str, said: str) -> Stop:
        return Stop(f"{name}:{_line(text, steps)}: {said}", Exit.USAGE)

    for steps, value in _strings(data, ""):
        if looks_like_key(value):
            said = "looks like a key; write a reference: env:NAME, file:PATH, keyring:SERVICE/NAME or vault:PATH#FIELD"
            raise stop(steps, f"{steps.lstrip('.')} {said}")
        if steps.endswith(".text") and not _DURATION.fullmatch(value):
            where = steps.removesuffix(".text")
            raise stop(where, f"{where.lstrip('.')} is no duration; write 90s, 10m, 6h or 30d")
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


def _strings(value: object, steps: str) -> list[tuple[str, str]]:
    match value:
        case str():
            return [(steps, value)]
        case dict():
            return [x for k, v in value.items() for x in _strings(v, f"{steps}.{k}")]
        case list():
            return [x for v in value for x in _strings(v, steps)]
        case _:
            return []


def _line(text: str, steps: str) -> int:
    from verifier.specfile import line_of  # noqa: PLC0415  # only when something is wrong

    return line_of(text, steps)
