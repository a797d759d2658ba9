"""`lapse approve --server`: from another machine, under the token's own name."""

from __future__ import annotations

import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest
from web_made import RUN

from lapse.commands import approve
from lapse.exits import Exit, Stop
from playbooks.journal import What

if TYPE_CHECKING:
    from pathlib import Path

    from lapse.web.house import House
    from lapse.web.settings import RoleName


def token(house: House, folder: Path, name: str = "ann", role: RoleName = "approver") -> Path:
    file = folder / f"token-{name}"
    file.write_text(house.tokens.add(name, role) + "\n")
    file.chmod(0o600)
    return file


def test_approving_and_taking_it_back(
    house: House, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = token(house, tmp_path)
    assert approve.remote(RUN, f"{address}/", file, (), withdraw=False) is Exit.OK
    said = capsys.readouterr()
    assert f"{RUN} disable: changes" in said.out
    assert "agreed by ann until" in said.out
    assert f"`lapse resume {RUN}` on the console's machine" in said.err
    assert approve.remote(RUN[:5], address, file, ("delete",), withdraw=False) is Exit.WAITING
    assert "1 more needed" in capsys.readouterr().out
    assert approve.remote(RUN, address, file, (), withdraw=True) is Exit.OK
    assert [e.step for e in house.ledger.rotations.entries(RUN) if e.what is What.WITHDRAWN] == ["disable", "delete"]


def test_what_the_console_refuses_is_one_sentence(house: House, address: str, tmp_path: Path) -> None:
    viewer = token(house, tmp_path, "vic", "viewer")
    with pytest.raises(Stop, match="takes the role approver") as e:
        approve.remote(RUN, address, viewer, (), withdraw=False)
    assert e.value.code is Exit.NO_RIGHTS
    with pytest.raises(Stop, match="is no rotation"):
        approve.remote("r-none", address, token(house, tmp_path), (), withdraw=False)
    house.tokens.revoke("vic")
    with pytest.raises(Stop, match="a token is needed") as e:
        approve.remote(RUN, address, viewer, (), withdraw=False)
    assert e.value.code is Exit.NO_RIGHTS


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://console.example", "without TLS"),
        ("console.example", "write https://"),
        ("ftp://console.example", "write https://"),
        ("http://127.0.0.1:1", "cannot be reached"),
    ],
)
def test_no_token_goes_where_others_read_it(house: House, tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(Stop, match=words):
        approve.remote(RUN, url, token(house, tmp_path), (), withdraw=False)


def test_a_token_that_others_can_read_is_refused(house: House, tmp_path: Path) -> None:
    file = token(house, tmp_path)
    file.chmod(0o644)
    with pytest.raises(Stop, match="chmod 600"):
        approve.remote(RUN, "http://127.0.0.1:1", file, (), withdraw=False)


class Stranger(BaseHTTPRequestHandler):
    """No console of ours: it sends everybody elsewhere."""

    def do_POST(self) -> None:  # as the base calls it
        self.send_response(302)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_a_redirect_is_not_followed(house: House, tmp_path: Path) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(Stop, match="answers 302, and not as a console"):
            approve.remote(
                RUN, f"http://127.0.0.1:{server.server_address[1]}", token(house, tmp_path), (), withdraw=False
            )
        thread.join()
