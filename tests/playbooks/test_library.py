"""Every shipped playbook: it compiles for both modes, destroys nothing without a name, and says what is mistaken."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from stage import BOOK, PERSON

from playbooks.plan import Action, Facts, HandFacts, IssuerFacts, Mode, Plan, Slot, Used, plan
from playbooks.schema import FIELDS, HIDDEN, Need, Playbook, fill, span
from playbooks.settle import chosen, settled
from playbooks.specfile import PlaybookError, library, lint, parse
from playbooks.world import CONSUMERS, ISSUERS, SESSIONS, STORES, SUCCESSORS, Unready
from rotators.interface import Quarantine, Roomy, Style
from rotators.step import Effect
from verifier.catalogue import load_catalogue
from verifier.model import Credential, CredentialID, KindID
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = library()
SHIPPED = [
    "aws-access-key",
    "gcp-service-account-key",
    "azure-app-secret",
    "azure-storage-key",
    "openai-project-key",
    "anthropic-key",
    "vault-token",
    "vault-approle-secret-id",
    "vault-database-static-role",
    "vault-kv-copy",
    "postgres-password",
    "mysql-password",
    "redis-acl-password",
    "github-token",
    "gitlab-token",
    "slack-token",
    "huggingface-token",
    "self-revoke",
    "assisted",
    "postgres-to-dynamic",
    "postgres-to-static",
    "vault-token-to-jwt",
    "vault-approle-to-jwt",
]  # a list to read
TRIALS = {
    "role": "app", "path": "ci/x", "database": "postgresql", "secret": "s", "vault": "v", "prefix": "p",
    "connection": "pg", "audience": "a", "claims": "repository=acme/app", "grants": "read x",
}  # fmt: skip


def real(book: Playbook, mode: Mode) -> Plan:
    """Compile with what the shipped issuers, stores and session killers say of themselves."""
    none: frozenset[str] = frozenset()
    bare = plan(book, mode, _facts(book, None, ()))

    def settings(used: Used) -> Used:
        return replace(used, settings={n: TRIALS.get(n, v) if v == "?" else v for n, v in used.settings.items()})

    issuer = ISSUERS.make(settings(bare.issuer), none, str) if bare.issuer else None
    if bare.store:
        assert STORES.make(settings(bare.store), none, str).name
    killers = [SESSIONS.make(settings(s), none, str) for s in bare.sessions]
    facts = issuer and IssuerFacts(
        issuer.style, issuer.reversible, issuer.propagation.total_seconds(), issuer.permissions, issuer.also_dies,
        isinstance(issuer, Roomy) and issuer.makes_room,
    )  # fmt: skip
    hands = tuple(HandFacts(k.permissions, k.reversible, isinstance(k, Quarantine) and k.stops_new) for k in killers)
    made = _facts(book, facts, hands)
    if bare.successor:
        way, old = SUCCESSORS.make(settings(bare.successor), none, str), _old(book)
        said = HandFacts(way.permissions, way.reversible, displaces=way.displaces(old), about=way.about())
        made = replace(made, successor=said)
    return plan(book, mode, made)


def _old(book: Playbook) -> Credential:
    parts = {"username": Secret("app"), "password": Secret("x"), "host": Secret("db.example")}
    return Credential(CredentialID("x-" + "0" * 32), KindID(book.kinds[0]), parts)


def _facts(book: Playbook, issuer: IssuerFacts | None, killers: tuple[HandFacts, ...]) -> Facts:
    killers = killers or tuple(HandFacts({}) for _ in book.sessions)
    return Facts(
        CredentialID("x-" + "0" * 32), "x-000000", KindID(book.kinds[0]), {"username": "app", "id": "K"}, None,
        issuer, HandFacts({"put": ("w",)}), tuple(HandFacts({"push": ("p",)}) for _ in book.consumers), killers,
    )  # fmt: skip


def test_all_are_there_and_no_kind_is_unknown() -> None:
    assert set(LIBRARY) == set(SHIPPED)
    kinds = {k.id for k in load_catalogue()} | {"*"}
    for file in Path(str(files("playbooks") / "library")).glob("*.toml"):
        assert list(lint(file.read_bytes(), file.name, kinds)) == []
        assert file.stem == parse(file.read_bytes(), file.name).id


def variants(book: Playbook) -> Iterator[Playbook]:
    """Yield the playbook as shipped, and as far as `--set` bends it: no containment, quarantines, no approvals."""
    yield book
    sets = {"contain.disable": "false", "approvals.adds": "none", "approvals.changes": "none"}
    if book.store is not None:
        sets |= {"consumers.0.use": "command", "consumers.0.command": "true"}
    quarantine = {"aws_iam": ("aws_deny", "scope", "everything"), "gcp_iam": ("gcp_disable", "", ""),
                  "entra": ("entra_signins", "mode", "service_principal")}.get(book.issuer or "")  # fmt: skip
    if quarantine is not None:
        use, name, value = quarantine
        sets |= {"sessions.0.use": use} | ({f"sessions.0.{name}": value} if name else {})
    if book.issuer == "aws_iam":
        sets["issuer.if_full"] = "delete_inactive_unused"
    if book.replace is None or not book.replace.use:
        sets |= {"replace.use": "vault_jwt_role", "replace.role": "ci", "replace.audience": "a",
                 "replace.claims": "repository=acme/app", "replace.grants": "read x"}  # fmt: skip
    yield settled(book, sets)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("bent", [False, True], ids=["shipped", "bent"])
def test_nothing_irreversible_without_a_named_approval(name: str, mode: Mode, *, bent: bool) -> None:
    made = real(list(variants(LIBRARY[name]))[bent], mode)
    names = [s.name for s in made.steps]
    assert len(set(names)) == len(names)
    assert made.steps[-1].action in {Action.PROVE, Action.SUGGEST}
    assert sum(s.action is Action.PROVE for s in made.steps) == 1
    for s in made.steps:
        at = made.index(s.name)
        match s.effect:
            case Effect.DESTROYS:
                assert s.approvals >= 1, f"{name}: {s.name} destroys without anybody's name"
                assert not s.undo
            case Effect.ADDS | Effect.CHANGES:
                in_place = s.action is Action.PUSH and any(p.action is Action.APPLY for p in made.steps)
                assert s.undo or in_place, f"{name}: {s.name} says that it can be taken back, but not how"
            case Effect.READS:
                assert s.action not in CHANGE, f"{name}: {s.name} only claims to read"
        if s.action is Action.SETUP:
            assert s.approvals >= 1
        if s.effect is Effect.DESTROYS and s.action not in {Action.APPLY, Action.ROOM, Action.SETUP}:
            if made.makes:
                assert made.index("create") < made.index("verify") < at, "a fresh Live comes first"
            if made.successor:
                assert made.index("successor") < made.index("successor-check") < at, "the new way is seen first"
    if made.makes and made.style is not Style.REPLACE:
        early = made.steps[: made.index("create")]
        assert all(s.effect is not Effect.DESTROYS or s.action is Action.ROOM for s in early)


CHANGE = frozenset({
    Action.MINT, Action.APPLY, Action.ENTER, Action.PUSH, Action.DISABLE, Action.DELETE, Action.HAND_DELETE,
    Action.SESSIONS, Action.LIFT, Action.ROOM, Action.SETUP,
})  # fmt: skip


def test_the_walk_walks_every_action_that_changes() -> None:
    seen = {s.action for name in SHIPPED for m in Mode for b in variants(LIBRARY[name]) for s in real(b, m).steps}
    assert seen >= CHANGE
    assert set(Action) - seen == set(), "an action that no shipped playbook has is walked by nobody"


@pytest.mark.parametrize("name", SHIPPED)
def test_an_emergency_contains_first_whatever_can_be_taken_back(name: str) -> None:
    made = real(LIBRARY[name], Mode.EMERGENCY)
    slots = [s.slot for s in made.steps]
    contained = [i for i, s in enumerate(slots) if s is Slot.CONTAIN]
    if contained and Slot.CREATE in slots:
        assert max(contained) < slots.index(Slot.CREATE)
    assert not {Action.SOAK, Action.DRAIN} & {s.action for s in made.steps}


def test_what_in_place_means_is_said() -> None:
    made = real(LIBRARY["postgres-password"], Mode.GRACEFUL)
    assert [s.name for s in made.steps][2:5] == ["snapshot", "create", "apply"]
    assert "kills the old one in the same moment" in made.step("apply").title
    assert not any(s.action in {Action.DISABLE, Action.DELETE} for s in made.steps), "old and new are one account"
    made = real(LIBRARY["self-revoke"], Mode.GRACEFUL)
    assert "it has no successor" in made.step("delete").title


def test_open_settings_are_asked_for_by_name() -> None:
    assert real(LIBRARY["aws-access-key"], Mode.GRACEFUL).open_settings() == ["store.path"]
    by_hand = real(LIBRARY["assisted"], Mode.GRACEFUL)
    assert by_hand.open_settings() == ["create.open", "retire.open", "store.path"]
    assert not any("?" in s.title for s in by_hand.steps)
    pages = {
        "create.open": "https://acme.example/keys",
        "retire.open": "https://acme.example/old",
        "create.part": "token",
    }
    said = real(settled(LIBRARY["assisted"], pages), Mode.GRACEFUL)
    assert (said.page, said.old_page, said.part) == ("https://acme.example/keys", "https://acme.example/old", "token")
    assert said.open_settings() == ["store.path"]
    with pytest.raises(PlaybookError, match="needs open"):
        settled(LIBRARY["assisted"], {"create.open": "http://acme.example"})
    assert real(LIBRARY["vault-database-static-role"], Mode.GRACEFUL).open_settings() == ["issuer.role", "store.role"]


MISTAKES = {
    'id = "Sim"': (2, "id"),
    "times = 0": (11, "verify.times"),
    'every = "2 s"': (13, "no duration; write 90s"),
    'key_secret = "{new.secret}-x"': (8, "one field alone"),
    'key_secret = "{new.sekret}"': (8, "there is no field `new.sekret`"),
    'use = "simstore"\nsettings = { a = "{new.secret}" }': (7, "must not hold"),
    'use = "simstore"\nsettings = { a = "{old.password}" }': (7, "must not hold"),
    'use = "simstore"\nsettings = { a = "{if x}" }': (7, "there is no field"),
}


@pytest.mark.parametrize("wrong", MISTAKES)
def test_each_mistake_is_named_with_its_line(wrong: str) -> None:
    line, words = MISTAKES[wrong]
    right = {
        'id = "Sim"': 'id = "sim"',
        "times = 0": "times = 3\nwithin",
        'every = "2 s"': 'every = "2s"',
    }.get(wrong, 'key_secret = "{new.secret}"' if wrong.startswith("key_secret") else 'use = "simstore"')
    text = BOOK.replace(right, wrong + ("\nwithin" if right.endswith("within") else ""), 1)
    said = list(lint(text.encode(), "b.toml"))
    assert len(said) == 1, said
    where = said[0].split(":")[1]
    assert words in said[0]
    assert abs(int(where) - line) <= 1, said


def test_other_mistakes_are_sentences() -> None:
    cases = {
        b"\xff": "not UTF-8",
        b"id = ": "not TOML",
        b'id = "a"': "lacks",
        BOOK.replace("[create]\n", "").encode(): "create and store go together",
        BOOK.replace("[create]\n", '[create]\nby = "person"\n').encode(): "needs open",
        BOOK.replace("[create]\n", '[create]\nopen = "https://x"\n').encode(): "by = ",
        BOOK.replace("[create]\n", '[create]\nby = "person"\nopen = "https://x"\npart = "x"\n').encode(): "none of",
        BOOK.replace('for = ["sim_key"]', "for = []").encode(): "`for` is empty",
        BOOK.replace('issuer = "sim"\n', "").encode(): "without an issuer",
        (BOOK + '[approvals]\ndestroys = "none"\n').encode(): "nothing irreversible",
        (BOOK + '[evidence]\nwithin = "1h"\n').encode(): "at most 10m",
        BOOK.replace('write = { key_id = "{new.id}", key_secret = "{new.secret}" }', "write = {}").encode(): "empty",
    }
    for raw, words in cases.items():
        assert any(words in said for said in lint(raw, "b.toml")), words
        with pytest.raises(PlaybookError):
            parse(raw, "b.toml")


@given(st.text(max_size=200))
def test_no_text_breaks_the_linter(text: str) -> None:
    assert all(said.startswith("b.toml") for said in lint(text.encode("utf-8", "surrogatepass"), "b.toml"))


@given(st.sampled_from(BOOK.splitlines()), st.text(max_size=12))
def test_no_changed_line_breaks_the_linter(line: str, by: str) -> None:
    for said in lint(BOOK.replace(line, by, 1).encode("utf-8", "surrogatepass"), "b.toml"):
        assert said.startswith("b.toml")


def test_settings_are_laid_over_and_chosen() -> None:
    book = parse(BOOK.encode(), "b.toml")
    laid = settled(
        book,
        {
            "store.use": "vault_kv", "store.path": "a/b", "store.write.extra": "{old.id}", "issuer.user": "bob",
            "consumers.1.use": "command", "consumers.1.run": "x", "sessions.0.mode": "m", "retire.soak": "1h",
            "verify.times": "7", "contain.disable": "false", "approvals.destroys": "two",
        },
    )  # fmt: skip
    assert laid.store is not None
    assert (laid.store.use, laid.store.settings, laid.store.write["extra"]) == ("vault_kv", {"path": "a/b"}, "{old.id}")
    assert laid.issuer_settings == {"user": "bob"}
    assert laid.consumers[1].use == "command"
    assert laid.sessions[0].settings == {"mode": "m"}
    assert (laid.retire.soak, laid.verify.times, laid.contain.disable) == ("1h", 7, False)
    assert laid.approvals.destroys is Need.TWO
    for wrong in ({"retire.soak": "soon"}, {"approvals.destroys": "none"}, {"consumers.9.use": "x"}, {"a": "b"}):
        with pytest.raises(PlaybookError, match="--set"):
            settled(book, wrong)
    with pytest.raises(PlaybookError, match="no such setting"):
        settled(LIBRARY["self-revoke"], {"store.path": "x"})
    with pytest.raises(PlaybookError, match="no such setting"):
        settled(LIBRARY["self-revoke"], {"create.open": "https://x"})
    assert settled(book, {}) is book
    found = chosen({"store.path": "a", "sim.store.path": "b", "other.store.path": "c", "nonsense": "d"}, "sim")
    assert found == {"store.path": "b"}


def test_fields_never_hold_a_leaked_secret() -> None:
    assert not {f"old.{p}" for p in HIDDEN} & FIELDS
    assert fill("a/{old.username}/{new.id}", {"old.username": "bob"}) == "a/bob/{new.id}"
    assert span("1.5h").total_seconds() == 5400
    with pytest.raises(ValueError, match="no duration"):
        span("soon")
    assert parse(PERSON.encode(), "b.toml").issuer is None


def test_own_folders_replace_and_clash(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BOOK)
    assert library([tmp_path])["sim"].title == "A key of the small world"
    (tmp_path / "b.toml").write_text(BOOK)
    with pytest.raises(PlaybookError, match="called sim as well"):
        library([tmp_path])


def test_families_say_what_is_missing() -> None:
    nobody: frozenset[str] = frozenset()
    for used, modules, words in (
        (Used("nope", {}), nobody, "there is no consumer called nope"),
        (Used("os.path", {}), nobody, "rotate.modules"),
        (Used("no.such", {}), frozenset({"no.such"}), "needs the package no"),
    ):
        with pytest.raises(Unready, match=words):
            CONSUMERS.make(used, modules, str)
