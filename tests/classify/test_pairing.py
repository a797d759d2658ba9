"""Halves that stand close together become one key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import makers
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from verifier.classify import Classifier, classify_all
from verifier.classify.pairing import WINDOW
from verifier.model import GENERIC, Absent, Claim, Finding, Image, Place, SourceKind
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CLASSIFIER = Classifier()
ID, ID2 = makers.aws_id(seed=1), makers.aws_id(seed=2)
SECRET, SECRET2 = makers.aws_secret(1), makers.aws_secret(2)


def at(
    line: int | None, value: str, rule: str = "generic-api-key", path: str = "a.env", scanner: str = "gitleaks"
) -> Claim:
    place = Place(SourceKind.GIT, repository="r", path=path, line=line, revision="c1")
    return Claim(scanner, rule, Secret(value), place, 1)


def run(claims: Iterable[Claim]) -> list[tuple[str, dict[str, str], int | None]]:
    return [told(f) for f in classify_all(claims, CLASSIFIER)]


def told(f: Finding) -> tuple[str, dict[str, str], int | None]:
    return f.provider, {n: v.reveal() for n, v in sorted(f.parts.items())}, f.place.line


def test_an_id_and_a_secret_of_one_file_are_one_key_at_both_places() -> None:
    both = {"id": ID, "secret": SECRET}
    assert run([at(3, ID, "aws-access-token"), at(4, SECRET)]) == [("aws_akia", both, 4), ("aws_akia", both, 3)]
    assert run([at(3, SECRET), at(4, ID, "aws-access-token")]) == [("aws_akia", both, 3), ("aws_akia", both, 4)]


def test_a_secret_that_a_rule_names_finds_its_id_too() -> None:
    claims = [
        at(1, ID, "aws-access-token", scanner="betterleaks"),
        at(2, SECRET, "aws-secret-access-key", scanner="betterleaks"),
    ]
    assert [(k, len(p)) for k, p, _ in run(claims)] == [("aws_akia", 2), ("aws_akia", 2)]


def test_halves_of_other_files_commits_and_layers_stay_apart() -> None:
    one = at(1, ID, "aws-access-token")
    assert len(run([one, at(2, SECRET, path="b.env")])[0][1]) == 1
    other = at(2, SECRET)
    assert all(len(p) == 1 for _, p, _ in run([one, replace(other, place=replace(other.place, revision="c2"))]))
    layers = [Image("app", layer=f"sha256:{n}") for n in (1, 2)]
    apart = [replace(c, place=replace(c.place, image=i)) for c, i in zip((one, other), layers, strict=True)]
    assert all(len(p) == 1 for _, p, _ in run(apart))


def test_halves_too_far_apart_stay_halves() -> None:
    assert [(k, list(p)) for k, p, _ in run([at(1, ID, "aws-access-token"), at(99, SECRET)])] == [
        (GENERIC, ["secret"]),
        ("aws_akia", ["id"]),
    ]


def test_two_keys_apart_are_paired_by_nearness() -> None:
    claims = [at(1, ID), at(2, SECRET), at(10, ID2), at(11, SECRET2)]
    assert {(p["id"], p["secret"]) for _, p, _ in run(claims)} == {(ID, SECRET), (ID2, SECRET2)}


def test_two_keys_close_together_make_every_plausible_pair() -> None:
    claims = [at(1, ID), at(2, SECRET), at(3, ID2), at(4, SECRET2)]
    pairs = {(p["id"], p["secret"]) for _, p, _ in run(claims)}
    assert pairs == {(i, s) for i in (ID, ID2) for s in (SECRET, SECRET2)}


def test_a_crowd_of_ids_makes_four_pairs_at_most() -> None:
    claims = [at(5, makers.aws_id(seed=n)) for n in range(10)] + [at(5, SECRET)]
    found = run(claims)
    assert len({p["id"] for _, p, _ in found if "secret" in p}) == 4
    assert len({p["id"] for _, p, _ in found if "id" in p}) == 10


def test_one_id_reported_twice_makes_one_pair() -> None:
    found = run([at(1, ID), at(1, ID), at(2, SECRET)])
    assert [p for _, p, _ in found].count({"id": ID, "secret": SECRET}) == 2
    assert len(found) == 3


def test_without_lines_only_the_only_one_is_taken() -> None:
    assert len(run([at(None, ID), at(None, SECRET)])[0][1]) == 2
    assert all(len(p) == 1 for _, p, _ in run([at(None, ID), at(None, ID2), at(None, SECRET)]))


def test_a_session_key_takes_its_token_along() -> None:
    asia, token = makers.aws_id(prefix="ASIA"), makers.draw(makers.ALNUM, 300)
    claims = [
        at(1, asia),
        at(2, SECRET),
        at(3, token, "kingfisher.aws.4", scanner="kingfisher-1.x"),
    ]
    assert run(claims)[0][:2] == ("aws_asia", {"id": asia, "secret": SECRET, "token": token})
    assert run([at(1, ID), *claims[1:]])[0][:2] == ("aws_akia", {"id": ID, "secret": SECRET})


def test_other_kinds_pair_by_the_parts_they_need() -> None:
    sid, auth = "AC" + makers.hexes(32, "sid"), makers.hexes(32, "auth")
    assert run([at(1, sid), at(2, auth)])[0][:2] == ("twilio", {"id": sid, "secret": auth})
    host = at(1, "acme.myshopify.com", "kingfisher.shopify.2", scanner="kingfisher-1.x")
    token = makers.make("shopify")
    assert run([host, at(2, token)])[0][:2] == ("shopify", {"host": "acme.myshopify.com", "secret": token})


def test_a_datadog_application_key_borrows_the_api_key_beside_it() -> None:
    api, app = at(1, makers.hexes(32), "DatadogApikey", scanner="trufflehog"), makers.hexes(40)
    assert CLASSIFIER.classify(replace(api, rule="x", provider="datadog_api")).provider == "datadog_api"
    found = run([replace(api, provider="datadog_api"), replace(at(2, app), provider="datadog_app")])
    assert found == [
        ("datadog_api", {"secret": makers.hexes(32)}, 1),
        ("datadog_app", {"secret": app, "api_key": makers.hexes(32)}, 2),
    ]
    assert run([replace(api, provider="datadog_api")]) == found[:1]


def test_an_ambiguous_secret_beside_an_id_of_no_candidate_stays_ambiguous() -> None:
    found = run([at(1, ID), at(2, makers.hexes(32))])
    assert (GENERIC, ["secret"]) in [(k, list(p)) for k, p, _ in found]


def test_two_secrets_without_an_id_stay_two() -> None:
    assert [k for k, _, _ in run([at(1, SECRET), at(2, SECRET2)])] == [GENERIC, GENERIC]


def test_whole_keys_and_hidden_ones_pass_at_once_and_in_order() -> None:
    tokens = [makers.github(seed=n) for n in range(3)]
    hidden = replace(at(9, "x", "slack-bot-token"), value=Absent())

    def claims() -> Iterator[Claim]:
        for n, t in enumerate(tokens):
            yield at(n, t)
        yield hidden
        raise AssertionError("read ahead")

    stream = classify_all(claims(), CLASSIFIER)
    assert [told(next(stream))[1].get("secret") for _ in range(4)] == [*tokens, None]


def test_memory_is_bounded_by_a_window_over_all_files() -> None:
    out = 0
    stream = classify_all((at(1, ID, path=f"f{n}") for n in range(WINDOW + 50)), CLASSIFIER)
    next(stream)
    for _ in stream:
        out += 1
    assert out == WINDOW + 49


def test_halves_split_by_the_window_are_given_out_as_halves() -> None:
    claims = [at(1, ID), *(at(1, ID2, path=f"f{n}") for n in range(WINDOW)), at(2, SECRET)]
    found = run(claims)
    assert len(found) == WINDOW + 2
    assert all(len(p) == 1 for _, p, _ in found)


VALUES = [ID, ID2, SECRET, SECRET2, makers.hexes(32), makers.github(), "AC" + makers.hexes(32, 3)]


@given(
    st.lists(
        st.tuples(st.sampled_from(VALUES), st.one_of(st.none(), st.integers(1, 40)), st.sampled_from(["a", "b"])),
        max_size=30,
    )
)
def test_every_claim_makes_a_finding_at_its_own_place(rows: list[tuple[str, int | None, str]]) -> None:
    found = list(classify_all((at(line, v, path=p) for v, line, p in rows), CLASSIFIER))
    assert len(found) >= len(rows)
    seen = {(f.place.path, f.place.line, v.reveal()) for f in found for v in f.parts.values()}
    assert {(p, line, v) for v, line, p in rows} <= seen
    per_secret = {}
    for f in found:
        if "id" in f.parts and "secret" in f.parts:
            per_secret.setdefault((f.place.path, f.parts["secret"].reveal()), set()).add(f.parts["id"].reveal())
    assert all(len(ids) <= 8 for ids in per_secret.values())
