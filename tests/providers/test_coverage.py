"""`lapse providers --coverage`: the share of a scanner's rules that are verified, told without gloss."""

from __future__ import annotations

import pytest

from lapse.commands import providers as command
from lapse.exits import Exit, Stop
from verifier.catalogue import load_catalogue
from verifier.classify import Aliases
from verifier.shapes import rows

CATALOGUE = load_catalogue()
ALIASES = Aliases((s, r, k.id) for k in CATALOGUE for s, rules in k.aliases.items() for r in rules)


@pytest.mark.parametrize(("scanner", "least"), [("betterleaks", 0.85), ("kingfisher", 0.85), ("gitleaks", 0.85)])
def test_most_rules_that_a_peer_checks_are_verified(scanner: str, least: float) -> None:
    rules = ALIASES.tables[scanner]
    checked = command.validated(scanner, rules)
    able = {k.id for k in CATALOGUE if k.probe != "none"}
    done = {r for r in checked if (alias := ALIASES.get(scanner, r)) and able.intersection(alias.kinds)}
    assert len(done) / len(checked) >= least, sorted(checked - done)


def test_what_is_left_alone_has_a_provider_file_that_says_why() -> None:
    for rule in (rule for scanner, rule in rows("validated.tsv") if scanner == "betterleaks"):
        alias = ALIASES.get("betterleaks", rule)
        assert alias is not None, rule
        assert alias.kinds, f"{rule}: a peer checks this key, and we do not even name it"
        for kind in map(CATALOGUE.get, alias.kinds):
            assert kind is not None, rule
            assert kind.probe != "none" or len(kind.reason) > 20


def test_names_of_rules_in_specs_are_names_of_the_scanners() -> None:
    """A misspelt alias would never match: each must stand in the shipped table."""
    shipped = {(scanner, rule) for scanner, rule, *_ in rows("aliases.tsv")}
    for kind in CATALOGUE:
        for scanner, rules in kind.aliases.items():
            for rule in rules:
                assert (scanner, rule) in shipped, f"{kind.id}: {scanner} has no rule {rule}"


def test_the_command_tells_the_share_and_each_reason(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.run(None, "betterleaks", calls=False, json=False) is Exit.OK
    said = capfd.readouterr().out
    assert "rules that betterleaks checks itself" in said
    assert "gitlab-rrt: the only call it can make registers a runner" in said


def test_an_unknown_scanner_is_named_with_the_known_ones() -> None:
    with pytest.raises(Stop, match="betterleaks"):
        command.run(None, "nobody", calls=False, json=False)
    assert command.validated("titus", ["np.amplitude.1"]) == frozenset()


def test_what_is_told_by_its_form_counts_as_verified(capfd: pytest.CaptureFixture[str]) -> None:
    assert command.run(None, "trufflehog", calls=False, json=False) is Exit.OK
    said = capfd.readouterr().out
    assert "of 887 rules that trufflehog checks itself" in said
    for rule in ("JWT", "JDBC", "PrivateKey"):
        assert f" {rule}: " not in said
