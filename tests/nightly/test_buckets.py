"""Reports in object stores: S3 on MiniStack; Google's and Azure's APIs played here, as their documents show them."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from rows import row, sendgrid

from lapse.exits import Exit, Stop
from lapse.nightly.buckets import bucket
from lapse.nightly.web import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from night import Folder
    from servers import Server

    from lapse.sandbox.saas import Saas

PAGE = 2


class Store(ThreadingHTTPServer):
    """Objects by name, listed `PAGE` at a time in the way of either cloud."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.version = 1
        self.got: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def page(self, prefix: str, start: int) -> tuple[list[str], str]:
        names = sorted(n for n in self.objects if n.startswith(prefix))
        more = str(start + PAGE) if len(names) > start + PAGE else ""
        return names[start : start + PAGE], more


class _Handler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.server.got.append(self.path)
        if parts.path.startswith("/storage/v1/b/box/o"):
            name = unquote(parts.path.removeprefix("/storage/v1/b/box/o").removeprefix("/"))
            body = self._google(query) if not name else self.server.objects.get(name)
        elif not parts.path.startswith("/box"):
            body = None
        else:
            name = unquote(parts.path.removeprefix("/box").removeprefix("/"))
            assert self.headers["x-ms-version"]
            body = self._azure(query) if not name else self.server.objects.get(name)
        self.send_response(200 if body is not None else 404)
        self.send_header("content-length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def _google(self, query: dict[str, str]) -> bytes:
        names, more = self.server.page(query["prefix"], int(query.get("pageToken", "0")))
        items = [
            {"name": n, "generation": str(self.server.version), "updated": f"2026-11-0{i + 1}T00:00:00Z",
             "size": str(len(self.server.objects[n]))}
            for i, n in enumerate(names)
        ]  # fmt: skip
        return json.dumps({"items": items} | ({"nextPageToken": more} if more else {})).encode()

    def _azure(self, query: dict[str, str]) -> bytes:
        assert (query["restype"], query["comp"]) == ("container", "list")
        names, more = self.server.page(query["prefix"], int(query.get("marker", "0")))
        date = format_datetime(datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=1), usegmt=True)
        blobs = "".join(
            f"<Blob><Name>{n}</Name><Properties><Last-Modified>{date}</Last-Modified><Etag>{self.server.version}</Etag>"
            f"<Content-Length>{len(self.server.objects[n])}</Content-Length></Properties></Blob>"
            for n in names
        )
        head = '<?xml version="1.0" encoding="utf-8"?>'
        tail = f"<NextMarker>{more}</NextMarker></EnumerationResults>"
        return f"{head}<EnumerationResults><Blobs>{blobs}</Blobs>{tail}".encode()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's own name
        pass


@pytest.fixture
def store() -> Iterator[Store]:
    with storing() as server:
        yield server


@contextmanager
def storing() -> Iterator[Store]:
    server = Store()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def lines(*numbers: int) -> bytes:
    return "".join(json.dumps(row(n)) + "\n" for n in numbers).encode()


@pytest.mark.parametrize("address", ["gs://box/scans/", "azblob://account/box/scans/"])
def test_new_and_changed_objects_are_read_page_by_page(folder: Folder, saas: Saas, store: Store, address: str) -> None:
    for n in range(6):
        saas.add("sendgrid", sendgrid(n), "live")
    store.objects = {f"scans/{n} a.jsonl": lines(n) for n in range(5)} | {"other/5.jsonl": lines(5)}
    folder.also(f'[[nightly.source]]\nfrom = "{address}"\nendpoint = "{store.url}"')
    first = folder.night(Exit.LIVE)
    assert (first["keys"], first["new_keys"]) == (5, 5), "three pages, and nothing beside the prefix"
    second = folder.night(Exit.LIVE)
    assert (second["findings"], second["unchanged_reports"]) == (0, 5)
    store.version = 2
    assert folder.night(Exit.LIVE)["findings"] == 5


@pytest.mark.parametrize("address", ["gs://gone/x", "azblob://account/gone/x"])
def test_a_store_that_refuses_is_one_sentence(store: Store, address: str) -> None:
    with pytest.raises(Trouble, match="answers 404"):
        list(bucket(address, store.url).items())


@pytest.mark.parametrize("address", ["gs://box", "azblob://account/box"])
def test_a_store_that_is_away_is_one_sentence(address: str) -> None:
    with pytest.raises(Trouble, match="cannot be reached"):
        list(bucket(address, "http://127.0.0.1:1").items())


@pytest.mark.parametrize("address", ["s3:///x", "azblob://account", "gs://"])
def test_an_address_that_names_nothing_is_refused(address: str) -> None:
    with pytest.raises(Stop, match="no address of an object store"):
        bucket(address)


def test_reports_in_s3(folder: Folder, saas: Saas, ministack: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3  # this test only

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ministack.admin["id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ministack.admin["secret"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    url = f"http://127.0.0.1:{ministack.port}"
    s3 = boto3.client("s3", endpoint_url=url)
    s3.create_bucket(Bucket="scans")
    for n in range(3):
        saas.add("sendgrid", sendgrid(n), "live")
        s3.put_object(Bucket="scans", Key=f"a/{n}.jsonl", Body=lines(n))
    folder.also(f'[[nightly.source]]\nfrom = "s3://scans/a/"\nendpoint = "{url}"')
    assert folder.night(Exit.LIVE)["keys"] == 3
    s3.put_object(Bucket="scans", Key="a/2.jsonl", Body=lines(2, 2, 1))
    s3.close()
    second = folder.night(Exit.LIVE)
    assert (second["findings"], second["unchanged_reports"]) == (3, 2)
    with pytest.raises(Trouble, match="s3://nowhere: NoSuchBucket"):
        list(bucket("s3://nowhere/x", url).items())
