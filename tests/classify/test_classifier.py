"""Shape first, then the rule, then companions: what a claim is taken for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.classify import Aliases, Classifier, Says
from verifier.model import GENERIC, Absent, Claim, Finding, Hashed, Masked, Place, SourceKind
from verifier.secret import Secret
from verifier.shapes import Needs, Shape, shipped_needs, shipped_shapes

if TYPE_CHECKING:
    from verifier.model import Hidden

PLACE = Place(SourceKind.GIT, repository="r", path="a.env", line=7)
CLASSIFIER = Classifier()
ALONE = [s for s in shipped_shapes() if s.context == "alone"]


def claim(
    value: str | Hidden,
    rule: str = "generic-api-key",
    scanner: str = "gitleaks",
    provider: str | None = None,
    companions: dict[str, str] | None = None,
) -> Claim:
    held = Secret(value) if isinstance(value, str) else value
    return Claim(scanner, rule, held, PLACE, 1, {n: Secret(v) for n, v in (companions or {}).items()}, provider)


def parts(finding: Finding) -> dict[str, str]:
    return {n: v.reveal() for n, v in finding.parts.items()}


def kind(value: str | Hidden, *args: Any, **more: Any) -> str:
    return CLASSIFIER.classify(claim(value, *args, **more)).provider


# ── the shape ──────────────────────────────────────────────────────────────────────────────────────────

AMBIGUOUS = {"clerk": {"clerk", "stripe"}}
"""Kinds that share a distinctive shape: such a value stays between them."""


@given(shape=st.sampled_from(ALONE), seed=st.integers(0, 10**9))
def test_a_distinctive_shape_names_its_kind_without_any_rule(shape: Shape, seed: int) -> None:
    says_its_kind(shape, seed)


@pytest.mark.parametrize("shape", ALONE, ids=lambda s: f"{s.kind}-{s.part}-{s.pattern[:12]}")
def test_every_distinctive_shape_names_its_kind(shape: Shape) -> None:
    says_its_kind(shape, 0)


def says_its_kind(shape: Shape, seed: int) -> None:
    value = makers.of_shape(shape, seed)
    found = CLASSIFIER.classify(claim(value))
    if shape.kind in AMBIGUOUS and found.provider == GENERIC:
        assert set(found.candidates) == AMBIGUOUS[shape.kind]
        return
    assert found.provider == shape.kind
    assert parts(found)[shape.part] == value


@given(k=st.sampled_from(sorted({s.kind for s in shipped_shapes() if s.part == "secret"})), seed=st.integers(0, 10**9))
def test_a_report_that_names_the_kind_is_believed_and_keeps_the_value(k: str, seed: int) -> None:
    value = makers.make(k, seed=seed)
    found = CLASSIFIER.classify(claim(value, rule="", scanner="jsonl", provider=k))
    assert found.provider == k
    assert value in parts(found).values()


@pytest.mark.parametrize(
    ("value", "rule", "expected"),
    [
        (makers.github("gho_"), "github-pat", "github_oauth"),
        (makers.github_fine_grained(), "github-pat", "github_fg_pat"),
        (makers.gitlab(), "slack-bot-token", "gitlab_pat"),
        (makers.make("anthropic"), "openai-api-key", "anthropic"),
        (makers.make("openrouter"), "openai-api-key", "openrouter"),
        (makers.github("ghp_"), "beamer-api-token", "github_pat"),
    ],
)
def test_an_unmistakable_shape_beats_the_rule(value: str, rule: str, expected: str) -> None:
    assert kind(value, rule) == expected


@pytest.mark.parametrize("edge", ["{} ", " {}\n", "\t{}"])
def test_white_space_around_a_key_is_no_part_of_it(edge: str) -> None:
    token = makers.github()
    assert parts(CLASSIFIER.classify(claim(edge.format(token)))) == {"secret": token}


@pytest.mark.parametrize("around", ["Authorization: Bearer {}", 'token = "{}"', "export GH='{}'", "GITHUB_TOKEN={}"])
def test_a_key_inside_a_wider_match_is_found(around: str) -> None:
    token = makers.github()
    found = CLASSIFIER.classify(claim(around.format(token), "curl-auth-header"))
    assert (found.provider, parts(found)) == ("github_pat", {"secret": token})


def test_two_keys_inside_one_text_are_not_chosen_between() -> None:
    text = f"{makers.github(seed=1)} {makers.github(seed=2)}"
    found = CLASSIFIER.classify(claim(text))
    assert (found.provider, parts(found)) == (GENERIC, {"secret": text})


def test_a_text_of_many_words_is_not_searched_for_ever() -> None:
    text = " ".join(["nothing-of-note"] * 40 + [makers.github()])
    assert kind(text) == GENERIC


# ── collisions ─────────────────────────────────────────────────────────────────────────────────────────

HEX32 = makers.hexes(32)
HEX40 = makers.hexes(40)
UUID = "-".join(makers.hexes(n, n) for n in (8, 4, 4, 4, 12))
COLLISIONS = [
    (HEX32, {"algolia", "azure_openai", "datadog_api", "elevenlabs", "mailjet", "rollbar", "sentry", "twilio"}),
    (HEX40, {"circleci", "cloudsmith", "datadog_app", "deepgram", "gitea", "sonarqube", "sourcegraph", "wandb"}),
    (UUID, {"ai21", "codecov", "heroku", "npm", "opsgenie", "pinecone", "postmark", "railway", "scaleway", "snyk"}),
    (makers.hexes(64), {"linode", "sentry", "together", "virustotal", "hetzner"}),
    (makers.draw(makers.ALNUM, 40), {"cohere", "buildkite_agent", "jumpcloud", "plivo", "zendesk", "aws_akia"}),
    (makers.draw(makers.ALNUM, 32), {"mistral", "shodan", "box", "ovh", "zoom_s2s"}),
    ("sk-" + makers.draw(makers.ALNUM, 48), {"stability", "moonshot", "braintrust"}),
    ("sk-" + HEX32, {"deepseek"}),
]


@pytest.mark.parametrize(("value", "some"), COLLISIONS, ids=[str(n) for n in range(len(COLLISIONS))])
@pytest.mark.parametrize("rule", ["generic-api-key", "a rule nobody knows"])
def test_a_bare_shape_stays_ambiguous_without_a_rule(value: str, some: set[str], rule: str) -> None:
    found = CLASSIFIER.classify(claim(value, rule))
    assert found.provider == GENERIC
    assert some <= set(found.candidates)
    assert parts(found) == {"secret": value}


@pytest.mark.parametrize(("value", "some"), COLLISIONS, ids=[str(n) for n in range(len(COLLISIONS))])
def test_the_rule_decides_a_bare_shape(value: str, some: set[str]) -> None:
    tables = CLASSIFIER.aliases.tables["trufflehog"]
    rules = {a.kinds[0]: r for r in tables if (a := CLASSIFIER.aliases.get("trufflehog", r)) and a.says is Says.KIND}
    decided = {k: kind(value, rules[k], "trufflehog") for k in some if k in rules}
    assert decided
    assert all(found == k or (k, found) == ("aws_akia", "aws_asia") for k, found in decided.items())


def test_a_git_hash_is_not_taken_for_an_aws_secret() -> None:
    assert "aws_akia" not in CLASSIFIER.classify(claim(HEX40)).candidates


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sk_" + "live_51" + makers.draw(makers.ALNUM, 97), "stripe"),
        ("sk_" + "live_" + makers.hexes(40), "paystack"),
        ("sk_" + makers.hexes(48), "elevenlabs"),
        ("sk_" + "live_a2V5Xz" + makers.draw(makers.ALNUM, 60), "workos"),
        ("sk_" + "live_" + makers.draw(makers.ALNUM, 42), GENERIC),
    ],
)
def test_shared_prefixes_are_told_apart_or_left_open(value: str, expected: str) -> None:
    assert kind(value) == expected


def test_the_rule_chooses_between_two_distinctive_shapes() -> None:
    value = "sk_" + "live_" + makers.draw(makers.ALNUM, 42)
    assert kind(value, "stripe-access-token") == "stripe"
    assert kind(value, provider="clerk") == "clerk"
    assert set(CLASSIFIER.classify(claim(value, "openai-api-key")).candidates or ["openai"]) == {"openai"}


def test_a_checksum_chooses_between_two_kinds_of_one_shape() -> None:
    shapes = [
        Shape("one", "secret", "npm_[A-Za-z0-9]{36}", ("npm_",), checksum="npm"),
        Shape("two", "secret", "npm_[A-Za-z0-9]+", ("npm_",)),
    ]
    c = Classifier(shapes, {"one": Needs(), "two": Needs()})
    assert c.classify(claim(makers.npm())).provider == "one"
    assert c.classify(claim("npm_" + "a" * 36)).candidates == ("one", "two")


# ── the rule ───────────────────────────────────────────────────────────────────────────────────────────

KNOWN = {*shipped_needs(), GENERIC}


def test_every_rule_of_every_scanner_means_something_stated() -> None:
    seen = 0
    for scanner, table in CLASSIFIER.aliases.tables.items():
        for rule in tuple(table):
            alias = CLASSIFIER.aliases.get(scanner, rule)
            assert alias is not None
            assert set(alias.kinds) <= set(shipped_needs()), (scanner, rule)
            assert alias.says is not Says.UNKNOWN
            assert (alias.says in {Says.KIND, Says.CHOICE}) == bool(alias.kinds)
            seen += 1
    assert seen == 6346


def test_every_rule_classifies_a_plain_word_and_a_hidden_value() -> None:
    c = Classifier()
    for scanner, table in c.aliases.tables.items():
        for rule in tuple(table):
            alias = c.aliases.get(scanner, rule)
            assert alias is not None
            for value in ("correct-horse-battery", Absent()):
                found = c.classify(claim(value, rule, scanner))
                assert found.provider in KNOWN
                if alias.says is Says.KIND:
                    assert found.provider in {*alias.kinds, "aws_akia", "aws_asia"}, (scanner, rule)
                elif alias.says is Says.UNSUPPORTED:
                    assert (found.provider, found.candidates) == (GENERIC, ())
    assert not c.unknown_rules
    assert c.unsupported_rules.total() == 2 * 3704


def test_an_unknown_rule_is_counted_and_named() -> None:
    c = Classifier()
    for _ in range(3):
        assert c.classify(claim(HEX32, "brand-new-rule")).provider == GENERIC
    c.classify(claim(HEX32, "x", provider="nobody-we-know"))
    assert c.unknown_rules[("gitleaks", "brand-new-rule")] == 3
    assert c.unknown_rules[("gitleaks", "nobody-we-know")] == 1


def test_a_report_of_endless_rules_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifier.classify.classifier.MAX_RULES", 5)
    c = Classifier()
    for n in range(20):
        c.classify(claim(HEX32, f"rule-{n}"))
    assert len(c.unknown_rules) == 6
    assert c.unknown_rules[("gitleaks", "(more)")] == 15


def test_a_rule_for_another_product_is_counted_and_asks_nobody() -> None:
    c = Classifier()
    found = c.classify(claim(HEX32, "beamer-api-token"))
    assert (found.provider, found.candidates) == (GENERIC, ())
    assert c.unsupported_rules == {("gitleaks", "beamer-api-token"): 1}


@pytest.mark.parametrize(
    ("value", "scanner", "rule", "expected"),
    [
        (makers.github("ghs_"), "trivy", "github-app-token", "github_installation"),
        (makers.github("ghu_"), "trivy", "github-app-token", "github_app_user"),
        (HEX40, "gitleaks", "datadog-access-token", "datadog_app"),
        (HEX32, "gitleaks", "datadog-access-token", "datadog_api"),
        (makers.hexes(64), "gitleaks", "discord-api-token", GENERIC),
        (UUID, "gitleaks", "hubspot-api-key", GENERIC),
        ("pat-" + "na1-" + UUID, "gitleaks", "hubspot-api-key", "hubspot"),
        ("ghp_" + "tooshort", "trufflehog", "Github", "github_pat"),
        ("what is this", "trufflehog", "Github", GENERIC),
        ("squ_" + HEX40, "gitleaks", "sonar-api-token", "sonarqube"),
        (HEX40, "gitleaks", "sonar-api-token", GENERIC),
    ],
)
def test_the_shape_decides_where_a_rule_leaves_a_choice(value: str, scanner: str, rule: str, expected: str) -> None:
    assert kind(value, rule, scanner) == expected


def test_a_choice_that_nothing_decides_keeps_its_candidates() -> None:
    assert CLASSIFIER.classify(claim(HEX40, "sonar-api-token")).candidates == ("sonarqube", "sonarcloud")
    assert set(CLASSIFIER.classify(claim("what is this", "Github", "trufflehog")).candidates) >= {"github_pat"}


@pytest.mark.parametrize(
    ("scanner", "rule", "expected"),
    [
        ("semgrep", "some.path.github-pat.github-pat", "github_pat"),
        ("betterleaks", "github-pat", "github_pat"),
        ("noseyparker", "GitHub App Token", GENERIC),
        ("my-wrapper", "github-pat", "github_pat"),
        ("my-wrapper", "github_pat", "github_pat"),
    ],
)
def test_rule_names_are_found_by_relatives_and_wrappers(scanner: str, rule: str, expected: str) -> None:
    c = Classifier()
    assert c.classify(claim("ghp", rule, scanner)).provider == expected
    assert not c.unknown_rules


@pytest.mark.parametrize(
    ("provider", "value", "expected"),
    [
        ("openai", "anything at all", "openai"),
        ("OpenAI", "anything at all", "openai"),
        ("openai", makers.github(), "openai"),
        ("github", makers.github("gho_"), "github_oauth"),
        ("datadog", HEX40, "datadog_app"),
        ("generic", HEX32, GENERIC),
    ],
)
def test_a_provider_named_by_the_report_wins(provider: str, value: str, expected: str) -> None:
    assert kind(value, "", "jsonl", provider) == expected


def test_a_vendor_and_the_parts_name_the_kind() -> None:
    login = {"username": "u", "host": "h"}
    found = CLASSIFIER.classify(claim("pw", "", "generic", "mongodb", login))
    assert (found.provider, parts(found)) == ("mongodb_uri", {"password": "pw", **login})
    found = CLASSIFIER.classify(claim(SECRET, "", "generic", "aws", {"id": ASIA, "token": "t"}))
    assert (found.provider, set(parts(found))) == ("aws_asia", {"id", "secret", "token"})
    assert kind("anything", "", "generic", "sendgrid") == "sendgrid"


def test_an_odd_length_behind_a_distinctive_prefix_is_left_open_with_a_name() -> None:
    assert CLASSIFIER.classify(claim("ghp_" + "a" * 99)).candidates[0] == "github_pat"


def test_coverage_counts_a_scanners_rules() -> None:
    counts = CLASSIFIER.aliases.coverage("gitleaks")
    assert counts.total() == 222
    assert counts[Says.KIND] > 60
    assert not CLASSIFIER.aliases.coverage("no such scanner")


def test_a_spec_adds_its_own_rule_names() -> None:
    aliases = Aliases(
        [
            ("gitleaks", "beamer-api-token", "stripe"),
            ("gitleaks", "github-pat", "github_pat"),
            ("mine", "both", "stripe"),
            ("mine", "both", "openai"),
        ]
    )
    c = Classifier(aliases=aliases)
    assert c.classify(claim("x", "beamer-api-token")).provider == "stripe"
    assert c.classify(claim("x", "github-pat")).provider == "github_pat"
    assert c.classify(claim("x", "both", "mine")).candidates == ("stripe", "openai")


@pytest.mark.parametrize(
    ("rule", "good", "bad"), [("github-pat", makers.github(), "ghp_short"), ("datadog-access-token", HEX40, "zz")]
)
def test_fits_tells_the_shape_of_what_a_rule_finds(rule: str, good: str, bad: str) -> None:
    fits = CLASSIFIER.fits("gitleaks", rule)
    assert fits is not None
    assert fits(good)
    assert not fits(bad)
    assert CLASSIFIER.fits("gitleaks", "generic-api-key") is None


# ── companions ─────────────────────────────────────────────────────────────────────────────────────────

AKIA, ASIA, SECRET = makers.aws_id(), makers.aws_id(prefix="ASIA"), makers.aws_secret()
SID = "AC" + makers.hexes(32, "sid")
BOTH = {"id": AKIA, "secret": SECRET}


@pytest.mark.parametrize(
    ("value", "scanner", "rule", "companions", "expected"),
    [
        (AKIA, "trufflehog", "AWS", {"rawv2": f"{AKIA}:{SECRET}"}, ("aws_akia", BOTH)),
        (AKIA, "trufflehog", "AWS", {"rawv2": AKIA + SECRET}, ("aws_akia", BOTH)),
        (AKIA, "trufflehog", "AWS", {"secret_access_key": SECRET, "rawv2": f"{AKIA}:{SECRET}"}, ("aws_akia", BOTH)),
        (AKIA, "trufflehog", "AWS", {"key": SECRET, "id": AKIA}, ("aws_akia", BOTH)),
        (SECRET, "kingfisher-1.x", "kingfisher.aws.2", {"AKID": AKIA}, ("aws_akia", BOTH)),
        (SECRET, "gitleaks", "generic-api-key", {"aws_access_key_id": AKIA}, ("aws_akia", BOTH)),
        (SECRET, "betterleaks", "aws-secret-access-key", {"aws-access-token": ASIA},
         ("aws_asia", {"id": ASIA, "secret": SECRET})),
        (ASIA, "trufflehog", "AWSSessionKey", {"secret": SECRET, "SessionToken": "t" * 200},
         ("aws_asia", {"id": ASIA, "secret": SECRET, "token": "t" * 200})),
        (AKIA, "gitleaks", "aws-access-token", {}, ("aws_akia", {"id": AKIA})),
        (SID, "trufflehog", "Twilio", {"rawv2": SID + HEX32}, ("twilio", {"id": SID, "secret": HEX32})),
        (HEX32, "trufflehog", "Twilio", {"rawv2": SID + HEX32}, ("twilio", {"id": SID, "secret": HEX32})),
        (makers.make("shopify"), "trufflehog", "Shopify", {"shop": "acme.myshopify.com"},
         ("shopify", {"secret": makers.make("shopify"), "host": "acme.myshopify.com"})),
        (makers.make("azure_sp"), "trufflehog", "Azure", {"ClientId": UUID, "tenant_id": UUID},
         ("azure_sp", {"secret": makers.make("azure_sp"), "id": UUID, "tenant": UUID})),
        (HEX40, "trufflehog", "DatadogToken", {"apiKey": HEX32, "appKey": HEX40},
         ("datadog_app", {"secret": HEX40, "api_key": HEX32})),
        (HEX32, "trufflehog", "Twilio", {"secret": "SK" + HEX32}, ("twilio", {"secret": HEX32, "id": "SK" + HEX32})),
        (UUID, "trufflehog", "Dockerhub", {"secret": "me"}, ("dockerhub", {"secret": UUID, "username": "me"})),
        (UUID, "trufflehog", "Dockerhub", {"RawV2": f"{UUID}me"}, ("dockerhub", {"secret": UUID, "username": "me"})),
        (makers.make("atlassian_cloud"), "trufflehog", "JiraToken", {"email": "a@b", "host": "x.atlassian.net"},
         ("atlassian_cloud",
          {"secret": makers.make("atlassian_cloud"), "username": "a@b", "host": "x.atlassian.net"})),
        (makers.make("dockerhub"), "trufflehog", "Dockerhub", {"username": "me"},
         ("dockerhub", {"secret": makers.make("dockerhub"), "username": "me"})),
        (makers.github(), "trufflehog", "Github", {"username": "me", "rawv2": "z"},
         ("github_pat", {"secret": makers.github()})),
        ("pw", "ggshield", "PostgreSQL Credentials", {"host": "h", "user": "u", "database": "d", "port": "1"},
         ("postgres", {"password": "pw", "host": "h", "username": "u", "database": "d", "port": "1"})),
        (HEX32, "gitleaks", "generic-api-key", {"Some Thing": "x"}, (GENERIC, {"secret": HEX32, "some_thing": "x"})),
        (HEX32, "gitleaks", "generic-api-key", {"secret": "other"}, (GENERIC, {"secret": HEX32})),
        (HEX32, "gitleaks", "generic-api-key", {"value": HEX32, "!!": "y"}, (GENERIC, {"secret": HEX32, "extra": "y"})),
    ],
)  # fmt: skip
def test_companions_get_our_part_names(
    value: str, scanner: str, rule: str, companions: dict[str, str], expected: tuple[str, dict[str, str]]
) -> None:
    found = CLASSIFIER.classify(claim(value, rule, scanner, None, companions))
    assert (found.provider, parts(found)) == expected


@pytest.mark.parametrize("host", ["https://Vault.Example:8200/v1/", "vault.example:8200", " VAULT.example:8200"])
def test_a_host_is_written_plainly(host: str) -> None:
    token = makers.make("vault_token")
    found = CLASSIFIER.classify(claim(token, companions={"VAULT_ADDR": host}))
    assert parts(found) == {"secret": token, "host": "vault.example:8200"}
    login = CLASSIFIER.classify(claim("pw", "", "generic", "postgres", {"username": "u", "host": "H:5433"}))
    assert parts(login) == {"password": "pw", "username": "u", "host": "h", "port": "5433"}
    hidden = CLASSIFIER.classify(claim(Absent(), "", "generic", "vault_token", {"host": host}))
    assert parts(hidden) == {"host": "vault.example:8200"}


def test_a_stray_companion_does_not_split_one_key_in_two() -> None:
    with_user = CLASSIFIER.classify(claim(makers.github(), "Github", "trufflehog", None, {"user": "me"}))
    without = CLASSIFIER.classify(claim(makers.github(), "github-pat"))
    assert parts(with_user) == parts(without)


@pytest.mark.parametrize(
    ("value", "scanner", "rule", "part"),
    [
        (makers.draw("ABCDEFGHIJKLMNOP", 16), "gitleaks", "confluent-access-token", "id"),
        (makers.draw(makers.ALNUM, 64), "gitleaks", "confluent-access-token", "secret"),
        ("acme.jfrog.io", "betterleaks", "artifactory-jfrog-url", "host"),
        ("SK" + HEX32, "gitleaks", "twilio-api-key", "id"),
        ("myaccount", "betterleaks", "azure-storage-account-name", "account"),
        (UUID, "gitleaks", "messagebird-client-id", "id"),
        ("s3cr3t", "trufflehog", "Redis", "password"),
    ],
)
def test_what_a_rule_captures_is_never_called_a_secret_when_it_is_not(
    value: str, scanner: str, rule: str, part: str
) -> None:
    assert parts(CLASSIFIER.classify(claim(value, rule, scanner))) == {part: value}


# ── what is hidden ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hidden", "scanner", "rule", "expected"),
    [
        (Masked("ghp_****"), "ggshield", "GitHub Token", "github_pat"),
        (Masked("AKIA…WXYZ"), "gitleaks", "generic-api-key", "aws_akia"),
        (Masked("REDACTED"), "gitleaks", "slack-bot-token", "slack_bot"),
        (Masked("***"), "trivy", "private-key", "private_key_tls"),
        (Hashed("sha1", "0" * 40), "detect-secrets", "Stripe Access Key", "stripe"),
        (Hashed("sha1", "0" * 40), "detect-secrets", "GitHub Token", GENERIC),
        (Hashed("sha1", "0" * 40), "detect-secrets", "JSON Web Token", "jwt"),
        (Absent(), "gitleaks", "discord-api-token", GENERIC),
    ],
)
def test_a_hidden_secret_is_named_as_far_as_the_report_goes(
    hidden: Hidden, scanner: str, rule: str, expected: str
) -> None:
    found = CLASSIFIER.classify(claim(hidden, rule, scanner))
    assert (found.provider, found.hidden, parts(found)) == (expected, hidden, {})


def test_a_hidden_secret_keeps_its_companions_and_the_reports_word() -> None:
    found = CLASSIFIER.classify(claim(Absent(), "", "jsonl", "twilio", {"id": SID}))
    assert (found.provider, parts(found)) == ("twilio", {"id": SID})


# ── JSON Web Tokens ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("claims", "scanner", "rule", "expected"),
    [
        ({"sub": "x"}, "gitleaks", "jwt", "jwt"),
        ({"sub": "x"}, "gitleaks", "generic-api-key", "jwt"),
        ({"iss": "supabase", "role": "service_role", "ref": "abc"}, "gitleaks", "jwt", "supabase_secret"),
        ({"iss": "supabase", "role": "anon", "ref": "abc"}, "gitleaks", "jwt", "jwt"),
        ({"iss": "kubernetes/serviceaccount"}, "gitleaks", "jwt", "kubernetes_sa"),
        ({"kubernetes.io": {}}, "gitleaks", "generic-api-key", "kubernetes_sa"),
        ({"tid": 1}, "trufflehog", "Monday", "monday"),
        ({"tid": 1}, "gitleaks", "beamer-api-token", GENERIC),
    ],
)
def test_a_web_token_goes_by_the_rule_then_by_what_it_says(
    claims: dict[str, Any], scanner: str, rule: str, expected: str
) -> None:
    assert kind(makers.jwt(claims), rule, scanner) == expected


# ── anything at all ────────────────────────────────────────────────────────────────────────────────────

RULES = [(s, r) for s, table in CLASSIFIER.aliases.tables.items() for r in list(table)[::40]]
TEXTS = st.one_of(
    st.text(),
    st.from_regex(r"[a-z+]{2,12}://[^@]*@[^ ]*"),
    st.from_regex(r"([A-Za-z ]+=[^;]*;){1,4}"),
    st.builds(json.dumps, st.dictionaries(st.sampled_from(["type", "auths", "client_email"]), st.text())),
    st.builds(lambda t: "-----BEGIN RSA PRIVATE KEY-----" + t, st.text()),
)


@given(
    value=st.one_of(TEXTS, st.builds(Masked, st.text()), st.builds(Absent)),
    rule=st.one_of(st.sampled_from(RULES), st.tuples(st.text(), st.text())),
    provider=st.one_of(st.none(), st.sampled_from(sorted(shipped_needs())), st.text()),
    companions=st.dictionaries(st.one_of(st.text(), st.sampled_from(["id", "rawv2", "host", "secret"])), TEXTS),
)
def test_classification_never_raises(
    value: str | Hidden, rule: tuple[str, str], provider: str | None, companions: dict[str, str]
) -> None:
    held = Secret(value) if isinstance(value, str) else value
    named = {n: Secret(v) for n, v in companions.items()}
    found = CLASSIFIER.classify(Claim(rule[0], rule[1], held, PLACE, 1, named, provider))
    assert found.provider in KNOWN
    assert set(found.candidates) <= set(shipped_needs())


@given(value=st.from_regex(r"[A-Za-z0-9_.-]{1,80}", fullmatch=True), rule=st.sampled_from(RULES))
def test_a_token_is_never_lost(value: str, rule: tuple[str, str]) -> None:
    found = CLASSIFIER.classify(claim(value, rule[1], rule[0]))
    # a host is kept in lower case, so that equal hosts get equal ids
    assert value.lower() in {part.lower() for part in parts(found).values()} or ":" in value
