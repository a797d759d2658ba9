"""What the configuration makes of providers: addresses and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lapse.commands.setup import SANDBOX, Setup
from lapse.config import load
from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.spec import Limits

PUBLISHED = load_catalogue().kinds["sendgrid"].limits


def limits(tmp_path: Path, text: str, kind: str = "sendgrid") -> Limits:
    file = tmp_path / "lapse.toml"
    file.write_text(text)
    return Setup(load(file)).catalogue.kinds[kind].limits


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "127.9.0.1", "[::1]:9", "localhost:8080"])
@pytest.mark.parametrize("name", ["sendgrid", "openai"])
def test_an_override_on_loopback_is_asked_at_the_speed_of_a_sandbox(tmp_path: Path, host: str, name: str) -> None:
    text = f'[providers.{name}]\nbase_url = "http://{host}/x"\n'
    assert limits(tmp_path, text, name) == SANDBOX
    (tmp_path / "lapse.toml").write_text(text + "rate = 7.0\n")
    found = Setup(load(tmp_path / "lapse.toml")).catalogue.kinds[name].limits
    assert (found.rate, found.burst, found.concurrency) == (7.0, 100, 16)


@pytest.mark.parametrize("url", ["https://sendgrid.acme.test", "https://127.0.0.1.acme.test", "https://10.0.0.1", ""])
def test_any_other_address_keeps_the_published_limits(tmp_path: Path, url: str) -> None:
    assert limits(tmp_path, f'[providers.sendgrid]\nbase_url = "{url}"\n') == PUBLISHED
