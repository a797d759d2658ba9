"""A night that pulls from GitHub's and GitLab's secret-scanning APIs: servers on loopback that answer as they do."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from rows import sendgrid

from lapse.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from night import Folder

    from lapse.sandbox.saas import Saas

GITHUB = {
    "number": 1,
    "html_url": "https://github.com/acme/shop/security/secret-scanning/1",
    "secret_type": "sendgrid_api_key",
    "validity": "unknown",
    "first_location_detected": {"path": "a.env", "start_line": 3},
    "has_more_locations": False,
    "repository": {"full_name": "acme/shop", "private": True},
}
GITLAB = {"category": "secret_detection", "name": "SendGrid API token", "location": {"file": "a.env", "start_line": 3}}


class Host(ThreadingHTTPServer):
    """One page of `rows`, for whoever shows the token; or `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rows: list[dict[str, Any]] = []
        self.status = 200
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        shown = self.headers.get("authorization") or self.headers.get("private-token") or ""
        self.server.asked.append((self.path.partition("?")[0], shown))
        body = json.dumps(self.server.rows).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its own name
        pass


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def alert(name: str, n: int) -> dict[str, Any]:
    if name == "github":
        return GITHUB | {"number": n, "secret": sendgrid(n)}
    inner = GITLAB | {"raw_source_code_extract": sendgrid(n)}
    return {"report_type": "secret_detection", "title": "t", "finding": {"raw_metadata": json.dumps(inner)}}


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("github:acme/shop", "/repos/acme/shop/secret-scanning/alerts"),
        ("github:acme", "/orgs/acme/secret-scanning/alerts"),
        ("gitlab:acme/shop", "/api/v4/projects/acme%2Fshop/vulnerabilities"),
    ],
)
def test_a_night_pulls_alerts_and_asks_about_their_keys(
    folder: Folder, saas: Saas, host: Host, monkeypatch: pytest.MonkeyPatch, source: str, path: str
) -> None:
    name = source.partition(":")[0]
    monkeypatch.setenv("SCANNING", "hush")
    folder.also(f'[sources.{name}]\nbase_url = "{host.url}"\ntoken = "env:SCANNING"')
    folder.also(f'[[nightly.source]]\nname = "alerts"\nfrom = "{source}"')
    saas.add("sendgrid", sendgrid(1), "live")
    host.rows = [alert(name, 1), alert(name, 2)]
    night = folder.night(Exit.LIVE)
    assert (night["findings"], night["keys"], night["failed"]) == (2, 2, [])
    assert host.asked == [(path, "Bearer hush" if name == "github" else "hush")]
    assert [d["where"].rpartition(" ")[2] for d in night["diff"]["new"]] == ["a.env:3"]
    assert sendgrid(1)[5:20] not in json.dumps(night)

    host.status = 403
    night = folder.night(Exit.BROKE)
    assert len(night["failed"]) == 1
    assert night["diff"]["total"]["live"] == 1
    assert night["diff"]["total"]["removed_never_revoked"] == 0, "what was not pulled is unknown, not gone"
