"""The generic report, which anything can write: one JSON object a line, or its CSV twin.

JSONL, one finding a line; everything but one opening part is optional:

    {"provider": "openai", "parts": {"secret": "…"},
     "place": {"source": "git", "repository": "acme/api", "path": ".env", "line": 3}}

`provider` is a kind id of `lapse providers`, or left out: the key's shape then decides. `parts` uses our part names
(`secret id token username password host port database account tenant region`, others as a provider asks). `place` has
`source` (git docker filesystem bucket chat ticket ci package other), `repository`, `image` (a reference such as
`ghcr.io/acme/api:1.2`), `tag`, `digest`, `layer`, `path`, `line`, `column`, `revision`, `author`, `url`,
`visibility` (public private). Beside them may stand `rule` (the finder's own name for it) and `seen_at` (ISO 8601).
A part that is masked (`AKIA****`) makes the finding incomplete, to be read back with `--source`.

CSV: the same names as column titles, in any order, one finding a row; `provider` and at least one of `secret`,
`password`, `token` must be there. A part under another name has the column `part.NAME`. Unknown columns are ignored.

    provider,secret,id,host,source,repository,image,path,line
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from verifier.ingest.clues import has_keys, opens_with, plain, when
from verifier.ingest.image import image
from verifier.ingest.interface import Format, Likelihood
from verifier.ingest.pieces import address, repository
from verifier.ingest.stream import claims, csv_rows, jsonl
from verifier.model import Claim, Place, Skipped, SourceKind, Visibility
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verifier.ingest.interface import Source

_OPENING = ("secret", "password", "token")
_PARTS = frozenset({*_OPENING, "id", "username", "host", "port", "database", "account", "tenant", "region"})
_PLACE = (
    "source", "repository", "image", "tag", "digest", "layer", "path", "revision", "author", "url", "visibility",
)  # fmt: skip
_KINDS = {kind.value: kind for kind in SourceKind}
_SEEN_BY = {seen.value: seen for seen in Visibility}
_HOW = "see `lapse formats generic-jsonl`"


class _Where(Struct):
    source: str | None = None
    repository: str | None = None
    image: str | None = None
    tag: str | None = None
    digest: str | None = None
    layer: str | None = None
    path: str | None = None
    line: int | None = None
    column: int | None = None
    revision: str | None = None
    author: str | None = None
    url: str | None = None
    visibility: str | None = None


class _Row(Struct):
    parts: dict[str, str]
    provider: str | None = None
    place: _Where = field(default_factory=_Where)
    rule: str | None = None
    seen_at: str | None = None


def _place(where: _Where) -> Place:
    kind = SourceKind.DOCKER if where.image else SourceKind.GIT if where.repository else SourceKind.FILESYSTEM
    if where.source:
        kind = _KINDS.get(where.source.lower(), SourceKind.OTHER)
    return Place(
        kind,
        repository=repository(where.repository or ""),
        image=image(where.image, tag=where.tag, digest=where.digest, layer=where.layer) if where.image else None,
        path=where.path,
        line=where.line or None,
        column=where.column or None,
        revision=where.revision,
        author=where.author,
        visibility=_SEEN_BY.get((where.visibility or "").lower(), Visibility.UNKNOWN),
        url=address(where.url or ""),
    )


def _claim(number: int, row: _Row) -> Claim | Skipped:
    parts = {name: text for name, text in row.parts.items() if text}
    main = next((name for name in _OPENING if name in parts), None)
    if main is None:
        return Skipped(number, "parts", "it has none of the parts secret, password, token", _HOW)
    return Claim(
        scanner="generic",
        rule=row.rule or row.provider or "generic",
        value=plain(parts[main]),
        place=_place(row.place),
        row=number,
        companions=_companions(parts, main),
        provider=row.provider or None,
        seen_at=when(row.seen_at),
    )


def _companions(parts: Mapping[str, str], main: str) -> dict[str, Secret]:
    """Return the other parts. A password or token that is the value keeps its own name here, too."""
    rest = {name: Secret(text) for name, text in parts.items() if name != main}
    return rest if main == "secret" else {main: Secret(parts[main]), **rest}


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _from_csv(number: int, row: dict[str, str]) -> Claim | Skipped:
    given = {name.strip().lower(): text for name, text in row.items() if text and text.strip()}
    row = {name: text if name.endswith("password") else text.strip() for name, text in given.items()}
    parts = {
        name.removeprefix("part."): text for name, text in row.items() if name in _PARTS or name.startswith("part.")
    }
    for name in ("line", "column"):
        if name in row and _number(row[name]) is None:
            return Skipped(number, name, "it is not a whole number", _HOW)
    where = _Where(
        **{name: row.get(name) for name in _PLACE}, line=_number(row.get("line")), column=_number(row.get("column"))
    )
    return _claim(
        number,
        _Row(parts, provider=row.get("provider"), place=where, rule=row.get("rule"), seen_at=row.get("seen_at")),
    )


def _sniff_jsonl(head: bytes) -> Likelihood:
    line = head.lstrip().partition(b"\n")[0]
    if opens_with(line, b"{") and has_keys(line, "parts") and (has_keys(line, "provider") or has_keys(line, "place")):
        return Likelihood.LIKELY
    return Likelihood.NO


def _sniff_csv(head: bytes) -> Likelihood:
    line = head.lstrip().partition(b"\n")[0].decode("utf-8", "replace").lower()
    columns = {column.strip(' "\r') for column in line.replace(";", ",").replace("\t", ",").split(",")}
    return Likelihood.LIKELY if "provider" in columns and columns & {*_OPENING} else Likelihood.NO


def _parse_jsonl(source: Source) -> Iterator[Claim | Skipped]:
    return claims(jsonl(source, _Row), _claim)


def _parse_csv(source: Source) -> Iterator[Claim | Skipped]:
    return claims(csv_rows(source, "provider"), _from_csv)


FORMATS = (
    Format(
        name="generic-jsonl",
        scanner="generic",
        summary="one finding a line: provider, parts, place",
        sniff=_sniff_jsonl,
        parse=_parse_jsonl,
    ),
    Format(
        name="generic-csv",
        scanner="generic",
        summary="one finding a row: provider,secret,id,host,source,repository,image,path,line",
        sniff=_sniff_csv,
        parse=_parse_csv,
    ),
)
