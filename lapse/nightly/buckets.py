"""Reports in object stores: S3 by boto3; Google Cloud Storage and Azure Blob by their REST APIs and their own log-ins.

Only lists and reads. The clouds' packages are imported when an address asks for them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as ET

import msgspec
from msgspec import Struct

from lapse.exits import Exit, Stop
from lapse.nightly.web import Trouble, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lapse.nightly.web import Answer

_S3 = re.compile(r"s3://([^/]+)/?(.*)")
_GCS = re.compile(r"gs://([^/]+)/?(.*)")
_AZURE = re.compile(r"azblob://([a-z0-9]+)/([^/]+)/?(.*)")
_GCS_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_AZURE_SCOPE = "https://storage.azure.com/.default"
_AZURE_VERSION = "2023-11-03"
_LARGEST = 5 << 30
"""A report of more than 5 GiB is refused."""


class Item(NamedTuple):
    """One object: its name, and a mark that changes when it does. `order`: oldest first."""

    name: str
    mark: str
    order: str
    size: int


class Bucket(Protocol):
    """A place that lists and gives objects."""

    def items(self) -> Iterator[Item]:
        """Yield the objects under the prefix. Raises `Trouble`, one sentence."""
        ...

    def fetch(self, name: str, target: Path) -> None:
        """Write an object's bytes to `target`. Raises `Trouble`."""
        ...


def is_bucket(address: str) -> bool:
    """Say whether an address names an object store."""
    return address.startswith(("s3://", "gs://", "azblob://"))


def bucket(address: str, endpoint: str = "") -> Bucket:
    """Return the store behind an address; `endpoint` replaces the cloud's own."""
    if m := _S3.fullmatch(address):
        return _S3Bucket(m.group(1), m.group(2), endpoint)
    if m := _GCS.fullmatch(address):
        return _GoogleBucket(m.group(1), m.group(2), endpoint or "https://storage.googleapis.com")
    if m := _AZURE.fullmatch(address):
        account, container, prefix = m.groups()
        return _AzureBucket(container, prefix, endpoint or f"https://{account}.blob.core.windows.net")
    said = "write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or azblob://ACCOUNT/CONTAINER/PREFIX"
    raise Stop(f"nightly.source: {address} is no address of an object store; {said}", Exit.USAGE)


class _S3Bucket:
    def __init__(self, name: str, prefix: str, endpoint: str) -> None:
        import boto3  # slow to import

        self._name, self._prefix = name, prefix
        self._client = boto3.client("s3", endpoint_url=endpoint or None)

    def items(self) -> Iterator[Item]:
        from botocore.exceptions import BotoCoreError, ClientError  # slow to import

        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=self._name, Prefix=self._prefix):
                for o in page.get("Contents", []):
                    yield Item(o["Key"], str(o["ETag"]), o["LastModified"].isoformat(), int(o["Size"]))
        except (BotoCoreError, ClientError) as e:
            raise Trouble(f"s3://{self._name}: {_code(e)}") from None

    def fetch(self, name: str, target: Path) -> None:
        from boto3.exceptions import Boto3Error  # slow to import
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.download_file(self._name, name, str(target))
        except (BotoCoreError, Boto3Error, ClientError) as e:
            raise Trouble(f"s3://{self._name}/{name}: {_code(e)}") from None


def _code(error: Exception) -> str:
    """Return the service's own code for an error, else its type; never its text, which may quote a request."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(code or type(error).__name__)


class _GoogleObject(Struct):
    name: str
    generation: str = ""
    updated: str = ""
    size: str = "0"


class _GooglePage(Struct):
    items: list[_GoogleObject] = []
    next: str = msgspec.field(default="", name="nextPageToken")


class _GoogleBucket:
    def __init__(self, name: str, prefix: str, endpoint: str) -> None:
        self._name, self._prefix, self._endpoint = name, prefix, endpoint.rstrip("/")

    def _headers(self) -> dict[str, str]:
        if not self._endpoint.startswith("https://"):
            return {}  # an emulator on this machine; a token never travels in the clear
        import google.auth  # slow to import
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            credentials, _ = google.auth.default(scopes=[_GCS_SCOPE])
            credentials.refresh(Request())  # type: ignore[no-untyped-call]  # google-auth publishes no type here
        except GoogleAuthError as e:
            raise Trouble(f"gs://{self._name}: no log-in ({type(e).__name__}); see Google's default log-in") from None
        return {"authorization": f"Bearer {credentials.token}"}

    def items(self) -> Iterator[Item]:
        headers, token = self._headers(), ""
        while True:
            query = {"prefix": self._prefix, "fields": "items(name,generation,updated,size),nextPageToken"}
            query |= {"pageToken": token} if token else {}
            answer = get(f"{self._endpoint}/storage/v1/b/{quote(self._name)}/o?{urlencode(query)}", headers)
            page = _json(answer, _GooglePage)
            yield from (Item(o.name, o.generation, o.updated, int(o.size)) for o in page.items)
            token = page.next
            if not token:
                return

    def fetch(self, name: str, target: Path) -> None:
        url = f"{self._endpoint}/storage/v1/b/{quote(self._name)}/o/{quote(name, safe='')}?alt=media"
        get(url, self._headers(), target)


class _AzureBucket:
    def __init__(self, container: str, prefix: str, endpoint: str) -> None:
        self._container, self._prefix, self._endpoint = container, prefix, endpoint.rstrip("/")

    def _headers(self) -> dict[str, str]:
        headers = {"x-ms-version": _AZURE_VERSION}
        if not self._endpoint.startswith("https://"):
            return headers  # an emulator on this machine; a token never travels in the clear
        from azure.core.exceptions import ClientAuthenticationError  # slow to import
        from azure.identity import DefaultAzureCredential

        try:
            with DefaultAzureCredential() as login:
                return headers | {"authorization": f"Bearer {login.get_token(_AZURE_SCOPE).token}"}
        except ClientAuthenticationError:
            raise Trouble(f"{self._endpoint}: no log-in; see Azure's DefaultAzureCredential") from None

    def items(self) -> Iterator[Item]:
        headers, marker = self._headers(), ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": self._prefix}
            query |= {"marker": marker} if marker else {}
            answer = get(f"{self._endpoint}/{quote(self._container)}?{urlencode(query)}", headers)
            try:
                page = ET.fromstring(answer.body)  # noqa: S314  # expat without entities from outside; a page is bounded
            except ET.ParseError:
                raise Trouble(f"{self._endpoint}: the answer is no list of blobs") from None
            for blob in page.iterfind("./Blobs/Blob"):
                found = {e.tag: e.text or "" for e in blob.iterfind("./Properties/*")}
                size = int(found.get("Content-Length") or 0)
                yield Item(blob.findtext("Name") or "", found.get("Etag", ""), _date(found), size)
            marker = page.findtext("NextMarker") or ""
            if not marker:
                return

    def fetch(self, name: str, target: Path) -> None:
        get(f"{self._endpoint}/{quote(self._container)}/{quote(name)}", self._headers(), target)


def _date(properties: dict[str, str]) -> str:
    from email.utils import parsedate_to_datetime  # Azure only

    try:
        return parsedate_to_datetime(properties.get("Last-Modified", "")).isoformat()
    except ValueError:
        return ""


def _json(answer: Answer, kind: type[_GooglePage]) -> _GooglePage:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Trouble("the object store's answer is no list of objects") from None
