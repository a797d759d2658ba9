"""The whole way in a real browser, on real servers: a leaked AWS key is replaced in OpenBao and dies before one's eyes.

The console is `lapse serve` in a process of its own; AWS is MiniStack, which checks signatures.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from desk import Desk
from web_tab import Tab

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page
    from servers import Server

PATIENCE = 90_000
"""Milliseconds that a rotation may take before a test gives up."""

ALLOW = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
QUICK = {
    "verify.times": "2", "verify.every": "100ms", "retire.drain": "0s", "retire.soak": "500ms", "prove.times": "3",
    "prove.window": "1s",
}  # fmt: skip


class Cloud:
    """An AWS account with leaky users, an OpenBao, and a responder's desk whose ledger holds the leaked keys."""

    def __init__(self, bao: Server, aws: Server, folder: Any) -> None:
        self.bao, self.aws = bao, aws
        self.desk = Desk(folder)
        account = self.client("sts").get_caller_identity()["Account"]
        self.desk.config += [
            f'[scope]\naccounts = ["{account}"]',
            f'[providers.aws_akia]\nbase_url = "{aws.url}"',
            "[rotate.set]\n" + "\n".join(f'"aws-access-key.{n}" = "{v}"' for n, v in QUICK.items()),
        ]
        self.desk.env |= {
            "AWS_ENDPOINT_URL": aws.url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ACCESS_KEY_ID": aws.admin["id"], "AWS_SECRET_ACCESS_KEY": aws.admin["secret"],
            "VAULT_ADDR": bao.url, "VAULT_TOKEN": bao.admin["token"],
        }  # fmt: skip
        self.keys: list[tuple[str, dict[str, str]]] = []

    def client(self, service: str, pair: dict[str, str] | None = None) -> Any:
        import boto3

        pair = pair or dict(self.aws.admin)
        return boto3.client(
            service, endpoint_url=self.aws.url, region_name="us-east-1", aws_access_key_id=pair["id"],
            aws_secret_access_key=pair["secret"],
        )  # fmt: skip

    def leak(self, count: int) -> None:
        """Let so many users' keys leak, and find them live."""
        iam, rows, pairs = self.client("iam"), [], []
        for n in range(count):
            iam.create_user(UserName=f"web-{n}")
            iam.put_user_policy(UserName=f"web-{n}", PolicyName="own", PolicyDocument=json.dumps(ALLOW))
            made = iam.create_access_key(UserName=f"web-{n}")["AccessKey"]
            pairs.append({"id": made["AccessKeyId"], "secret": made["SecretAccessKey"]})
            place = {"source": "docker", "image": f"acme/api{n}", "tag": "1", "path": "app/.env", "line": n + 1}
            rows.append({"provider": "aws_akia", "parts": pairs[-1], "place": place})
        self.desk.run("ingest", self.desk.report(rows))
        self.desk.run("verify", "-q", code=10)
        found: dict[int, str] = {}
        for key in self.desk.json("report", "--format", "json")["keys"]:
            found[key["places"][0]["line"]] = key["key"]
        self.keys = [(found[n], pair) for n, pair in enumerate(pairs, 1)]

    def alive(self, pair: dict[str, str]) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client("sts", pair).get_caller_identity()
        except ClientError as e:
            if e.response["Error"]["Code"] != "InvalidClientTokenId":
                raise
            return False
        return True

    def stored(self, path: str) -> dict[str, str]:
        import hvac

        kv = hvac.Client(self.bao.url, self.bao.admin["token"]).secrets.kv.v2
        data = kv.read_secret_version(path, raise_on_deleted_version=True)["data"]["data"]
        return {"id": data["access_key_id"], "secret": data["secret_access_key"]}

    def of_user(self, pair: dict[str, str]) -> list[str]:
        iam = self.client("iam")
        user = iam.get_access_key_last_used(AccessKeyId=pair["id"])["UserName"]
        return [k["AccessKeyId"] for k in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]]


class Console:
    """`lapse serve` in a process of its own."""

    def __init__(self, desk: Desk) -> None:
        self.process: subprocess.Popen[str] = desk.start("serve", "--port", "0")
        assert self.process.stderr is not None
        said = ""
        while not (link := re.search(r"(http://127\.0\.0\.1:\d+)(/login\?t=\S+)", said)):
            line = self.process.stderr.readline()
            assert line, said
            said += line
        self.address, self.link = link.groups()

    def log_in(self, chromium: Browser) -> Tab:
        page = chromium.new_context().new_page()
        page.set_default_timeout(PATIENCE)
        made = Tab(page, self.address)
        made.open(self.link)
        assert page.url == f"{self.address}/"
        return made

    def end(self, number: int = signal.SIGINT) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=20)
        assert "Traceback" not in said


@pytest.fixture(scope="module")
def cloud(openbao: Server, ministack: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Make the cloud, with five leaked keys."""
    made = Cloud(openbao, ministack, tmp_path_factory.mktemp("cloud"))
    with made.desk:
        made.leak(5)
        yield made
        assert "whole" in made.desk.run("ledger", "check").stderr


@pytest.fixture
def console(cloud: Cloud) -> Iterator[Console]:
    """Serve the console."""
    made = Console(cloud.desk)
    yield made
    made.end()


def start(page: Page, key: str, path: str) -> str:
    """Filter, open the key, read its plan, start it; return the run's name."""
    page.click("nav >> text=Keys")
    page.wait_for_url("**/keys")
    page.select_option("#group", "live")
    page.wait_for_url("**group=live*")
    page.fill("#q", key)
    page.press("#q", "Enter")
    page.wait_for_url("**q=aws*")
    page.click(f"table.keys >> text={key}")
    page.click("text=Replace this key")
    assert "Start this plan" not in page.inner_text("main"), "the store's path is still open"
    page.fill("input[name='set.store.path']", path)
    page.click("text=Show the plan")
    page.fill("#confirm", key)
    page.click("button:text-is('Start')")
    page.wait_for_url("**/runs/r-*")
    return page.url.rpartition("/")[2]


def test_a_key_is_replaced_and_dies_before_ones_eyes(cloud: Cloud, console: Console, chromium: Browser) -> None:
    key, old = cloud.keys[0]
    tab = console.log_in(chromium)
    page = tab.page
    run = start(page, key, "web/one")
    page.evaluate("window.untouched = true")
    page.fill("#a-delete", run)
    page.wait_for_selector("#says:has-text('one person must agree')")
    assert page.input_value("#a-delete") == run, "what is typed outlives the page's renewals"
    assert cloud.alive(old) is False, "disabled"
    assert old["id"] in cloud.of_user(old), "and not deleted without a word"
    assert page.evaluate("window.untouched"), "steps came without a reload"
    page.click("#b-delete")
    page.wait_for_selector("text=Recorded. The run goes on")
    page.wait_for_selector("#says:has-text('proven dead')")
    new = cloud.stored("web/one")
    assert cloud.alive(new)
    assert cloud.of_user(new) == [new["id"]]
    page.goto(f"{console.address}/keys")
    page.fill("#q", key)
    page.press("#q", "Enter")
    page.wait_for_selector("table.keys >> text=dead")
    assert tab.complaints == []
    page.context.close()


def test_the_same_by_keyboard_alone(cloud: Cloud, console: Console, chromium: Browser) -> None:
    key, old = cloud.keys[1]
    tab = console.log_in(chromium)
    page, press = tab.page, tab.page.keyboard.press

    def reach(selector: str, most: int = 60) -> None:
        for _ in range(most):
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            press("Tab")
        raise AssertionError(f"no way to {selector} by Tab")

    press("/")
    page.wait_for_url("**/keys")
    press("/")
    page.keyboard.type(key)
    press("Enter")
    page.wait_for_url("**q=aws*")
    press("j")
    press("Enter")
    page.wait_for_url("**/keys/aws-*")
    reach("main a.button")
    press("Enter")
    page.wait_for_url("**/rotate")
    reach("input[name='set.store.path']")
    page.keyboard.type("web/two")
    press("Enter")
    page.wait_for_url("**web%2Ftwo*")
    reach("#confirm")
    page.keyboard.type(key)
    press("Enter")
    page.wait_for_url("**/runs/r-*")
    run = page.url.rpartition("/")[2]
    page.wait_for_selector("#says:has-text('one person must agree')")
    reach("#a-delete")
    page.keyboard.type(run)
    press("Enter")
    page.wait_for_selector("#says:has-text('proven dead')")
    assert cloud.alive(cloud.stored("web/two"))
    assert old["id"] not in cloud.of_user(cloud.stored("web/two"))
    assert tab.complaints == []
    page.context.close()


def test_declined_or_undone_everything_is_as_before(cloud: Cloud, console: Console, chromium: Browser) -> None:
    page = console.log_in(chromium).page
    buttons = {"#decline": cloud.keys[2], "#undo": cloud.keys[3]}
    runs = {button: start(page, key, f"web/{button[1:]}") for button, (key, _) in buttons.items()}
    for button, (_, old) in buttons.items():
        page.goto(f"{console.address}/runs/{runs[button]}")
        page.wait_for_selector("#says:has-text('one person must agree')")
        page.fill("#why", "not in this window")
        page.click(button)
        page.wait_for_timeout(100)
        assert not cloud.alive(old), "nothing happens without the typed name"
        page.fill("#sure", runs[button])
        page.click(button)
        page.wait_for_selector("#says:has-text('everything is as before')")
        assert cloud.alive(old)
        assert cloud.of_user(old) == [old["id"]]
    page.context.close()


def test_whoever_is_killed_no_rotation_stops(cloud: Cloud, chromium: Browser) -> None:
    key, old = cloud.keys[4]
    console = Console(cloud.desk)
    page = console.log_in(chromium).page
    run = start(page, key, "web/killed")
    page.wait_for_selector("#steps >> text=done")
    os.kill(console.process.pid, signal.SIGKILL)
    console.end()
    page.context.close()
    until(lambda: newest(cloud.desk, run) == ("delete", "waiting"))
    assert not cloud.alive(old), "it went on without a console, up to the approval"
    (executor,) = executors(cloud.desk)
    os.kill(executor, signal.SIGKILL)
    again = Console(cloud.desk)
    page = again.log_in(chromium).page
    page.goto(f"{again.address}/runs/{run}")
    page.fill("#a-delete", run)
    page.click("#b-delete")
    page.wait_for_selector("#says:has-text('proven dead')")
    assert cloud.alive(cloud.stored("web/killed"))
    page.context.close()
    again.end()


def until(done: Callable[[], bool]) -> None:
    for _ in range(PATIENCE // 100):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def newest(desk: Desk, run: str) -> tuple[str, str]:
    with closing(sqlite3.connect(desk.ledger, timeout=30)) as raw:
        sql = "SELECT step, what FROM rotations WHERE run = ? ORDER BY id DESC LIMIT 1"
        step, what = raw.execute(sql, (run,)).fetchone()
    return str(step), str(what)


def executors(desk: Desk) -> list[int]:
    """Return the processes that go on with this desk's rotations."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            if b"lapse.web.executor" in words and (folder / "cwd").resolve() == desk.folder.resolve():
                found.append(int(folder.name))
    return found
