"""Rules against subjects: which fires, and why the others do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from rows import row, sendgrid

from lapse.exits import Exit, Stop
from lapse.owners import Owned
from lapse.policy import OnPaper, Subject, decide, exposure, proposal
from lapse.sections import Duration, PolicyRule
from verifier.model import CredentialID, Place, SourceKind, Visibility

if TYPE_CHECKING:
    from night import Folder

    from lapse.sandbox.saas import Saas

KEY = Subject(
    id=CredentialID("aws-" + "0" * 32),
    short="aws-000000",
    provider="aws_akia",
    vendor="aws",
    verdict="live",
    exposure="public",
    owner=Owned("payments", "image"),
    age=timedelta(days=10),
    privilege="admin",
    removed=False,
    ours=True,
    foreign=False,
    canary=False,
    first_seen=datetime(2026, 11, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({}, ""),
        ({"provider": ("aws",)}, ""),
        ({"provider": ("aws_akia", "gcp")}, ""),
        ({"provider": ("gcp", "azure")}, "provider is aws_akia, not gcp or azure"),
        ({"verdict": ("dead",)}, "verdict is live, not dead"),
        ({"exposure": ("public", "unknown")}, ""),
        ({"exposure": ("private",)}, "exposure is public, not private"),
        ({"owner": ("search",)}, "owner is payments, not search"),
        ({"privilege": ("admin", "write")}, ""),
        ({"privilege": ("read",)}, "privilege is admin, not read"),
        ({"older": Duration("9d")}, ""),
        ({"older": Duration("10d")}, "first seen 10.0 days ago, not longer than 10d"),
        ({"younger": Duration("11d")}, ""),
        ({"younger": Duration("10d")}, "first seen 10.0 days ago, not less than 10d"),
        ({"removed": False}, ""),
        ({"removed": True}, "it is still in the source"),
    ],
)
def test_a_condition_holds_or_says_why_not(rule: dict[str, Any], why: str) -> None:
    decision = decide([PolicyRule("ticket", **rule)], KEY)
    if why:
        assert decision.rule is None
        assert [m.why for m in decision.missed] == [why]
    else:
        assert (decision.action, decision.number, decision.missed) == ("ticket", 1, ())


def test_the_first_rule_that_fits_fires() -> None:
    rules = [PolicyRule("nothing", owner=("x",)), PolicyRule("ticket", name="t"), PolicyRule("notify")]
    decision = decide(rules, KEY)
    assert (decision.action, decision.number) == ("ticket", 2)
    assert [(m.number, m.name) for m in decision.missed] == [(1, "rule 1")]


@pytest.mark.parametrize(("verdict", "action"), [("live", "notify"), ("dead", "nothing"), ("undecided", "nothing")])
def test_without_rules_live_keys_are_notified(verdict: Any, action: str) -> None:
    assert decide([], replace(KEY, verdict=verdict)).action == action


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({"ours": False}, "nothing shows that it is ours"),
        ({"ours": False, "foreign": True}, "somebody else's"),
        ({"canary": True}, "canary"),
    ],
)
def test_what_is_not_ours_is_never_rotated(changed: dict[str, bool], held: str) -> None:
    about = replace(KEY, **changed)
    decision = decide([PolicyRule("rotate")], about)
    assert decision.action == "notify"
    assert held in decision.held
    assert proposal(decision, about) is None


def test_a_rotation_is_only_a_command_that_shows_the_plan() -> None:
    decision = decide([PolicyRule("rotate", playbook="aws-access-key", mode="emergency", approvals=2)], KEY)
    wanted = proposal(decision, KEY)
    assert wanted is not None
    assert wanted.command == "lapse rotate aws-000000 --playbook aws-access-key --mode emergency"
    assert "--apply" not in OnPaper().propose(wanted)
    assert "2 people must approve" in OnPaper().propose(wanted)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([], "unknown"),
        ([Visibility.PRIVATE], "private"),
        ([Visibility.PRIVATE, Visibility.UNKNOWN], "unknown"),
        ([Visibility.PRIVATE, Visibility.PUBLIC], "public"),
    ],
)
def test_one_public_place_is_public(seen: list[Visibility], told: str) -> None:
    assert exposure([Place(SourceKind.GIT, visibility=v) for v in seen]) == told


@pytest.mark.parametrize(
    "text",
    [
        '[[policy]]\naction = "rotate"\nverdict = ["dead"]',
        '[[policy]]\naction = "notify"\nplaybook = "x"',
        '[[policy]]\naction = "destroy"',
        '[[policy]]\naction = "notify"\nprovidor = ["aws"]',
        '[[owner]]\nname = "x"',
        '[[nightly.source]]\nfrom = "x"\ncommand = ["y"]',
        '[notify]\nurls = ["slack://a/b/c"]',
        '[notify.ticket]\nkind = "github"\nproject = "a/b"\ntoken = "not-a-reference"',
    ],
)
def test_a_config_that_cannot_be_carried_out_is_refused_with_its_line(folder: Folder, text: str) -> None:
    lines = folder.config.read_text().count("\n")
    folder.also(text)
    with pytest.raises(Stop) as stop:
        folder.diff()
    assert stop.value.code is Exit.USAGE
    assert int(str(stop.value).split(":")[1]) > lines


def test_policy_test_says_which_rule_fires_and_why(folder: Folder, saas: Saas) -> None:
    saas.add("sendgrid", sendgrid(1), "live")
    folder.also('[[policy]]\nname = "aws"\nprovider = ["aws"]\naction = "ticket"')
    folder.also('[[policy]]\nname = "rotate the rest"\naction = "rotate"')
    folder.report([row(1)])
    (new,) = folder.night(Exit.LIVE)["diff"]["new"]
    told = folder.policy(new["key"])
    assert (told["rule"], told["name"], told["action"]) == (2, "rotate the rest", "notify")
    assert told["missed"] == [{"number": 1, "name": "aws", "why": "provider is sendgrid, not aws"}]
    assert "ours" in told["held"]
    with pytest.raises(Stop, match="no key"):
        folder.policy("sendgrid-ffffffff")
