"""Hosts of `egress.basic_auth`: the only ones where an address with a password may be tried."""

from __future__ import annotations

import pytest

from lapse.commands.setup import Setup
from lapse.config import Config, EgressConfig
from lapse.exits import Stop


def test_the_config_brings_the_calls_host_by_host() -> None:
    without = Setup(Config()).catalogue.get("basic_auth_url")
    assert without is not None
    assert without.manifest() == ()
    kind = Setup(Config(egress=EgressConfig(basic_auth=("Git.acme.test",)))).catalogue.get("basic_auth_url")
    assert kind is not None
    assert {(c.method, c.host) for c in kind.manifest()} == {("HEAD", "git.acme.test")}


def test_what_is_no_host_is_told() -> None:
    with pytest.raises(Stop, match=r"egress\.basic_auth: 'https://x'"):
        _ = Setup(Config(egress=EgressConfig(basic_auth=("https://x",)))).catalogue
