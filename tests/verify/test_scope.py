"""Whose key is it."""

from __future__ import annotations

import pytest

from verifier.model import Identity
from verifier.scope import Ownership, Scope

OURS = Scope(
    accounts=frozenset({"111122223333"}),
    organisations=frozenset({"acme"}),
    domains=frozenset({"acme.test"}),
    hosts=frozenset({"git.acme.test"}),
)


@pytest.mark.parametrize(
    ("scope", "parts", "account", "said"),
    [
        (OURS, {}, "111122223333", Ownership.OURS),
        (OURS, {}, "999988887777", Ownership.FOREIGN),
        (OURS, {}, None, Ownership.UNKNOWN),
        (OURS, {"host": "git.acme.test"}, None, Ownership.OURS),
        (OURS, {"host": "db.acme.test"}, None, Ownership.OURS),
        (OURS, {"host": "git.evilacme.test"}, None, Ownership.FOREIGN),
        (OURS, {"account": "ci@proj.acme.test"}, None, Ownership.OURS),
        (OURS, {"account": "ci@other.test"}, None, Ownership.FOREIGN),
        (Scope(), {"host": "x.test"}, "1", Ownership.UNKNOWN),
        (Scope(domains=frozenset({"acme.test"})), {}, "999988887777", Ownership.UNKNOWN),
    ],
)
def test_before_a_call(scope: Scope, parts: dict[str, str], account: str | None, said: Ownership) -> None:
    assert scope.before(parts, account) is said


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (None, Ownership.UNKNOWN),
        (Identity(organisation="Acme"), Ownership.OURS),
        (Identity(organisation="other"), Ownership.FOREIGN),
        (Identity(principal="ada@acme.test"), Ownership.OURS),
        (Identity(principal="ada"), Ownership.UNKNOWN),
        (Identity(account="other", organisation="acme"), Ownership.OURS),
    ],
)
def test_after_a_call(identity: Identity | None, said: Ownership) -> None:
    assert OURS.after(identity) is said
