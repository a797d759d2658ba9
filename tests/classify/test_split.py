"""Compound secrets taken apart."""

from __future__ import annotations

import json
from base64 import b64encode

import makers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.classify import Classifier, split
from verifier.model import GENERIC, Claim, Place, SourceKind
from verifier.secret import Secret

KEY88 = makers.draw(makers.ALNUM, 86) + "=="
CLASSIFIER = Classifier()


def classify(text: str, rule: str = "generic-api-key", scanner: str = "gitleaks", provider: str | None = None):  # noqa: ANN201  # the splitter's own answer
    found = CLASSIFIER.classify(Claim(scanner, rule, Secret(text), Place(SourceKind.OTHER), 1, {}, provider))
    return found.provider, {n: v.reveal() for n, v in found.parts.items()}


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("postgres://u:p@h:5432/d", "postgres", "username=u password=p host=h port=5432 database=d"),
        ("postgresql+psycopg2://u:p@H.Example/d?x=1&sslmode=require", "postgres",
         "username=u password=p host=h.example database=d options=sslmode=require"),
        ("jdbc:postgresql://h/d?user=u&password=p%40q", "postgres", "host=h database=d username=u password=p@q"),
        ("mysql://u:p@h/d", "mysql", "username=u password=p host=h database=d"),
        ("mariadb://u:p%3A%2F@h", "mysql", "username=u password=p:/ host=h"),
        ("redis://:p@h:6379/0", "redis", "password=p host=h port=6379 database=0"),
        ("rediss://u:p@h", "redis", "username=u password=p host=h scheme=rediss"),
        ("mongodb://u:p@a:1,b:2/d?authSource=admin&retryWrites=true", "mongodb_uri",
         "username=u password=p host=a:1,b:2 database=d options=authsource=admin"),
        ("mongodb+srv://u:p@c.example", "mongodb_uri", "username=u password=p host=c.example scheme=mongodb+srv"),
        ("amqp://u:p@h:5672/%2Fv", "rabbitmq", "username=u password=p host=h port=5672 database=v"),
        ("amqps://u:p@h", "rabbitmq", "username=u password=p host=h scheme=amqps"),
        ("ldaps://cn=a,dc=b:p@h", "ldap", "username=cn=a,dc=b password=p host=h scheme=ldaps"),
        ("ftp://u:p@h/x/y", "sftp_ftp", "username=u password=p host=h path=x/y"),
        ("sftp://u:p@[2001:db8::1]:22", "sftp_ftp", "username=u password=p host=2001:db8::1 port=22 scheme=sftp"),
        ("https://u:p@h.example/path", "basic_auth_url", "username=u password=p host=h.example path=path"),
        ("http://u:p@h.example", "basic_auth_url", "username=u password=p host=h.example scheme=http"),
        ("postgres://u:a@b@h/d", "postgres", "username=u password=a@b host=h database=d"),
        ("jdbc:sqlserver://h:1433;user=u;password=p;databaseName=d", "sqlserver",
         "host=h port=1433 username=u password=p database=d"),
        ("Server=tcp:H,1433;Initial Catalog=d;User ID=u;Password=p", "sqlserver",
         "host=h port=1433 database=d username=u password=p"),
        ("Host=h;Port=5432;Database=d;Username=u;Password=p", "postgres",
         "host=h port=5432 database=d username=u password=p"),
        ("Host=h;Database=d;Username=u;Password=p", GENERIC, "host=h database=d username=u password=p"),
        (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={KEY88};EndpointSuffix=core.windows.net",
         "azure_storage", f"account=a secret={KEY88}"),
        (f"BlobEndpoint=https://a.blob.example/;AccountName=a;AccountKey={KEY88}", "azure_storage",
         f"account=a secret={KEY88} host=a.blob.example"),
        (f"AccountEndpoint=https://a.documents.azure.com:443/;AccountKey={KEY88}", "azure_cosmos",
         f"secret={KEY88} host=a.documents.azure.com"),
        ("Endpoint=sb://n.example/;SharedAccessKeyName=k;SharedAccessKey=s;EntityPath=q", "azure_sb",
         "id=k secret=s database=q host=n.example"),
        ("cloudinary://k:s@cloud", "cloudinary", "id=k secret=s account=cloud"),
    ],
)  # fmt: skip
def test_connection_strings(text: str, kind: str, parts: str) -> None:
    assert classify(text) == (kind, dict(item.split("=", 1) for item in parts.split(" ")))


@pytest.mark.parametrize(
    "text", ["https://example.com/", "x://", "postgres://h/d", "Key=value", "a=1;b=2", "not a thing", "foo://u@h"]
)
def test_what_holds_no_login_stays_one_text(text: str) -> None:
    assert classify(text) == (GENERIC, {"secret": text})


def test_a_webhook_address_is_one_secret() -> None:
    url = makers.make("slack_webhook")
    assert classify(url) == ("slack_webhook", {"secret": url})


def test_a_token_in_an_address_is_that_token() -> None:
    token = makers.github()
    assert classify(f"https://x-access-token:{token}@github.com/a/b") == ("github_pat", {"secret": token})
    assert classify(f"https://{token}@github.com/a/b") == ("github_pat", {"secret": token})


def test_the_rule_decides_whose_login_an_address_holds() -> None:
    assert classify("https://u:p@repo.example/x", "kingfisher.artifactory.4", "kingfisher-1.x")[0] == "artifactory"
    assert classify("Server=h;Uid=u;Pwd=p", provider="mysql") == (
        "mysql",
        {"host": "h", "username": "u", "password": "p"},
    )
    assert classify("foo://u:p@h", provider="postgres")[0] == "postgres"
    assert classify("https://h/x", provider="vault_token") == ("vault_token", {"secret": "https://h/x"})


def test_a_rule_that_catches_an_address_without_password_keeps_what_it_has() -> None:
    assert classify("postgres://u@h/d", "kingfisher.postgres.1", "kingfisher-1.x")[1]["host"] == "h"


@pytest.mark.parametrize("text", ["u:p", "dTpw" + "OnE=", "Basic " + b64encode(b"user:pass:word").decode()])
def test_logins(text: str) -> None:
    kind, parts = classify(text, "curl-auth-user")
    assert kind == "basic_auth_url"
    assert parts["username"].startswith("u")
    assert parts["password"].startswith("p")


@pytest.mark.parametrize("text", ["nologin", "a2V5", "u:", "not base64!!", b64encode(b"\xff\xfe:\xff").decode()])
def test_what_is_no_login_stays_one_text(text: str) -> None:
    assert text in classify(text, "curl-auth-user")[1].values()


def test_a_service_account_file_is_the_secret_however_it_is_spaced() -> None:
    wide, narrow = makers.gcp_service_account(), json.dumps(json.loads(makers.gcp_service_account()))
    kind, parts = classify(wide)
    assert (kind, parts["account"]) == ("gcp_sa", "robot@project.iam.gserviceaccount.com")
    assert json.loads(parts["secret"])["type"] == "service_account"
    assert classify(narrow, "gcp-service-account") == (kind, parts)


def test_application_default_credentials() -> None:
    text = json.dumps({"client_id": "a", "client_secret": "b", "refresh_token": "c", "type": "authorized_user"})
    assert classify(text)[0] == "gcp_adc"


def test_docker_files() -> None:
    login = b64encode(b"me:pw").decode()
    hub = json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": login}}})
    assert classify(hub) == ("dockerhub", {"secret": "pw", "username": "me"})
    own = json.dumps({"auths": {"ghcr.io": {"username": "me", "password": "pw"}}})
    assert classify(own) == ("ghcr_generic_registry", {"username": "me", "password": "pw", "host": "ghcr.io"})


@pytest.mark.parametrize(
    "text",
    [
        "{", "{}", '{"auths":{"a":1}}', '{"auths":{"a":{}}}', '{"auths":{}}', "{" * 2000,
        '{"auths":{"a":{"auth":"!"}}}',
        '{"type":"service_account"',
    ],
)  # fmt: skip
def test_other_json_stays_one_text(text: str) -> None:
    assert classify(text) == (GENERIC, {"secret": text})


def test_a_private_key_is_the_same_key_however_its_lines_end() -> None:
    pem = makers.private_key()
    expected = ("private_key_tls", {"secret": pem})
    assert classify(pem, "private-key") == expected
    assert classify(pem.replace("\n", "\\n"), "private-key") == expected
    assert classify(pem.replace("\n", "\r\n")) == expected
    assert classify('key = "' + pem + '"') == expected
    assert classify(pem, "GitHubApp", "trufflehog")[0] == "github_app_key"


def test_a_key_without_its_head_goes_by_the_rule() -> None:
    assert classify("MHcCAQEE", "private-key") == ("private_key_tls", {"secret": "MHcCAQEE"})


def test_a_cut_off_private_key_is_kept() -> None:
    assert classify(makers.private_key()[:90])[0] == "private_key_tls"


@given(
    user=st.text(min_size=1, max_size=20), password=st.text(min_size=1, max_size=20),
    host=st.from_regex(r"[a-z]{1,9}\.example", fullmatch=True),
)  # fmt: skip
def test_percent_encoding_goes_back_and_forth(user: str, password: str, host: str) -> None:
    from urllib.parse import quote

    found = split.uri(f"postgres://{quote(user, safe='')}:{quote(password, safe='')}@{host}/d")
    assert found is not None
    assert found.parts == {"username": user, "password": password, "host": host, "database": "d"}


@given(st.text())
def test_no_text_makes_it_raise(text: str) -> None:
    for take in (split.uri, split.fields, split.json_file, split.pem, split.login):
        take(text)


@pytest.mark.parametrize(
    ("password", "read"),
    [
        ('"a;b""c"', 'a;b"c'), ("'a;b''c'", "a;b'c"), ("{a;b}", "a;b"), ("a=b==", "a=b=="), ('a"b', 'a"b'),
        ('"a;b', None), ("'a;b", None), ("{word}", None), ('"a"b', None),
    ],
)  # fmt: skip
def test_a_quoted_password_is_whole_or_none(password: str, read: str | None) -> None:
    """Half a password would be refused, and the refusal taken for the death of the whole one."""
    found = split.fields(f"Host=db.acme.test;Port=5432;Username=u;Password={password};Database=d")
    assert (found.parts["password"] if found else None) == read
    if found:
        assert found.parts["database"] == "d"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_quoting_goes_back_and_forth(password: str) -> None:
    for quote in "\"'":
        doubled = password.replace(quote, quote * 2)
        found = split.fields(f"Host=h;Port=5432;Username=u;Password={quote}{doubled}{quote};Database=d")
        assert found is not None
        assert found.parts["password"] == password
        assert found.parts["database"] == "d"


@pytest.mark.parametrize(
    "text", ["redis://:p%FF@h", "redis://:p%FE@h", "postgres://u%80:p@h/d", "mysql://h/d?user=u&password=%C0"]
)
def test_bytes_that_are_no_text_do_not_become_another_password(text: str) -> None:
    assert split.uri(text) is None


@pytest.mark.parametrize(
    ("password", "kept"), [("ends in a blank ", "ends in a blank "), (" p", " p"), ("p\r\n", "p"), ("p \n", "p ")]
)
def test_a_password_keeps_its_blanks(password: str, kept: str) -> None:
    """`p` is refused where `p ` opens, and would be called dead."""
    companions = {"username": Secret("u"), "host": Secret("db.acme.test")}
    claim = Claim("generic", "", Secret(password), Place(SourceKind.OTHER), 1, companions, "postgres")
    found = CLASSIFIER.classify(claim)
    assert found.provider == "postgres"
    assert found.parts["password"].reveal() == kept


def test_a_token_loses_its_blanks() -> None:
    bare = classify("glpat-" + "a1B2" * 5, "gitlab-pat")
    assert classify("  glpat-" + "a1B2" * 5 + "\r\n", "gitlab-pat") == bare
