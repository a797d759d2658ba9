"""Credential files and connection strings of every dialect, taken apart."""

from __future__ import annotations

import datetime as dt
import json
from base64 import b64encode

import makers
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given
from hypothesis import strategies as st

from verifier.catalogue import load_catalogue
from verifier.classify import Classifier, credfiles, split
from verifier.model import Claim, Place, SourceKind
from verifier.secret import Secret

CLASSIFIER = Classifier.of(load_catalogue())
OPAQUE = makers.draw(makers.ALNUM, 40, "opaque")
JWT = ".".join(("eyJ" + makers.draw(makers.ALNUM, 30, "h"), "eyJ" + makers.draw(makers.ALNUM, 60, "p"), OPAQUE * 2))


def classify(text: str, rule: str = "generic-api-key") -> tuple[str, dict[str, str]]:
    found = CLASSIFIER.classify(Claim("gitleaks", rule, Secret(text), Place(SourceKind.OTHER), 1, {}, None))
    return found.provider, {n: v.reveal() for n, v in found.parts.items()}


def parts(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split(" ") if item)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("jdbc:mysql:loadbalance://u:p@h:3306/d", "mysql", "username=u password=p host=h port=3306 database=d"),
        ("jdbc:p6spy:mysql://h/d?user=u&password=p", "mysql", "username=u password=p host=h database=d"),
        ("jdbc:aws-wrapper:postgresql://h/d?user=u&password=p", "postgres",
         "username=u password=p host=h database=d"),
        ("jdbc:mariadb:sequential://h:1/d?user=u&password=p", "mysql",
         "username=u password=p host=h port=1 database=d"),
        ("jdbc:jtds:sqlserver://H:1433/d;user=u;password=p", "sqlserver",
         "host=h port=1433 database=d username=u password=p"),
        ("jdbc:sqlserver://h\\inst:1433;user=u;password=p@q?r", "sqlserver",
         "host=h port=1433 username=u password=p@q?r"),
        ("jdbc:sqlserver://h\\inst;user=u;password={a;b}", "sqlserver", "host=h\\inst username=u password=a;b"),
        ("sqlserver://u:p@h:1433?database=d", "sqlserver", "username=u password=p host=h port=1433 database=d"),
        ("jdbc:sqlserver://h;user=u;password=p;encrypt=strict;authentication=ActiveDirectoryPassword", "sqlserver",
         "host=h username=u password=p options=authentication=activedirectorypassword&encrypt=strict"),
        ("jdbc:sqlserver://h;user=u;password=p;encrypt=true;trustServerCertificate=false", "sqlserver",
         "host=h username=u password=p"),
        ("Data Source=h;User ID=u;Password=p;Trust Server Certificate=True;Authentication=Sql Password", "sqlserver",
         "host=h username=u password=p options=trustservercertificate=true"),
        ("Server=h;Initial Catalog=d;User ID=u;Password=p;Integrated Security=SSPI", "sqlserver",
         "host=h database=d username=u password=p options=integratedsecurity=true"),
        ("sqlserver://u:p@h:1433?database=d&fedauth=ActiveDirectoryPassword", "sqlserver",
         "username=u password=p host=h port=1433 database=d options=authentication=activedirectorypassword"),
        ("sqlserver://u:p@h/inst?database=d", "sqlserver", "username=u password=p host=h\\inst database=d"),
        ("mssql+pymssql://u:p@h/d", "sqlserver", "username=u password=p host=h database=d"),
        ("mssql+pyodbc:///?odbc_connect=Driver%3D%7BSQL+Server%7D%3BServer%3Dtcp%3Ah%2C1433%3BDatabase%3Dd%3BUid%3Du%3BPwd%3Dp",
         "sqlserver", "host=h port=1433 database=d username=u password=p"),
        ("Driver={ODBC Driver 18 for SQL Server};Server=h;Database=d;UID=u;PWD=p", "sqlserver",
         "host=h database=d username=u password=p"),
        ("Driver={MySQL ODBC 8.0 Unicode Driver};Server=h;UID=u;PWD=p", "mysql", "host=h username=u password=p"),
        ("jdbc:oracle:thin:u/p@//h:1521/svc", "oracle_db", "username=u password=p host=h port=1521 database=svc"),
        ("jdbc:oracle:thin:u/p@h:1521:SID", "oracle_db", "username=u password=p host=h port=1521 database=SID"),
        ("jdbc:db2://h:50000/d:user=u;password=p;", "db2", "host=h port=50000 database=d username=u password=p"),
        ("ssh://u:p@h:2222/home/u", "ssh_password", "username=u password=p host=h port=2222 path=home/u"),
        ("smtp://u%40x.test:p@mail.test:587", "smtp", "username=u@x.test password=p host=mail.test port=587"),
        ("smtps://u:p@mail.test", "smtp", "username=u password=p host=mail.test scheme=smtps"),
        ("imaps://u:p@mail.test:993/INBOX", "imap",
         "username=u password=p host=mail.test port=993 scheme=imaps"),
        (f"Endpoint=https://a.azconfig.io;Id=i;Secret={OPAQUE}=", "azure_app_config",
         f"host=a.azconfig.io id=i secret={OPAQUE}="),
    ],
)  # fmt: skip
def test_connection_strings_of_other_dialects(text: str, kind: str, expected: str) -> None:
    assert classify(text) == (kind, parts(expected))


@pytest.mark.parametrize(
    ("rule", "label", "kind"),
    [
        ("generic-api-key", "OPENSSH ", "ssh_key"),
        ("private-key", "OPENSSH ", "ssh_key"),
        ("generic-api-key", "RSA ", "private_key_tls"),
        ("private-key", "", "private_key_tls"),
    ],
)
def test_a_private_key_is_sshs_by_its_form(rule: str, label: str, kind: str) -> None:
    text = f"-----BEGIN {label}PRIVATE KEY-----\n{OPAQUE}\n-----END {label}PRIVATE KEY-----\n"
    assert classify(text, rule) == (kind, {"secret": text})


def test_a_private_key_is_sshs_by_a_rule_that_says_so() -> None:
    text = f"-----BEGIN RSA PRIVATE KEY-----\n{OPAQUE}\n-----END RSA PRIVATE KEY-----\n"
    claim = Claim("github", "github_ssh_private_key", Secret(text), Place(SourceKind.OTHER), 1, {}, None)
    assert CLASSIFIER.classify(claim).provider == "ssh_key"


def kubeconfig(user: str, server: str = "https://K8s.acme.test:6443", current: str = "a") -> str:
    return f"""apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {{server: "{server}", certificate-authority-data: AAAA}}
- name: other
  cluster: {{server: "https://other.test"}}
contexts:
- name: a
  context: {{cluster: c, user: u}}
- name: b
  context: {{cluster: other, user: v}}
current-context: {current}
users:
- name: u
  user: {user}
- name: v
  user: {{token: of-another}}
"""


def test_a_kubeconfig_is_what_its_current_context_logs_in_with() -> None:
    host = {"host": "k8s.acme.test:6443"}
    assert classify(kubeconfig(f"{{token: {JWT}}}")) == ("kubernetes_sa", {"secret": JWT} | host)
    kind, found = classify(kubeconfig("{username: me, password: pw}"))
    assert (kind, found["username"], found["password"]) == ("basic_auth_url", "me", "pw")
    pem = makers.private_key()
    data = b64encode(pem.encode()).decode()
    assert classify(kubeconfig(f"{{client-key-data: {data}}}")) == ("private_key_tls", {"secret": pem})


def test_a_server_behind_a_path_is_not_asked_at_its_root() -> None:
    text = kubeconfig(f"{{token: {JWT}}}", "https://rancher.acme.test/k8s/clusters/c-1")
    assert classify(text) == ("kubernetes_sa", {"secret": JWT})


@pytest.mark.parametrize(
    "text",
    [
        kubeconfig("{token: x}", current="gone"),
        kubeconfig("{exec: {command: aws}}"),
        kubeconfig("{client-key-data: '!'}"),
        "clusters: [\nserver",
        "clusters: {}\nserver: x",
        "clusters: 7\nusers: [[[1]]]\nserver: x",
        "- clusters: x\n- server",
        "users: " + "[" * 5000 + "server",
    ],
    ids=range(8),
)
def test_other_kubeconfigs_stay_one_text(text: str) -> None:
    assert credfiles.take(text) is None


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("machine Git.acme.test login me password pw", "basic_auth_url",
         "host=git.acme.test username=me password=pw"),
        ('machine h.test\n  login me\n  password "pw"\n', "basic_auth_url", "host=h.test username=me password=pw"),
        (f"//npm.acme.test/:_authToken={OPAQUE}", "npm", f"secret={OPAQUE} host=npm.acme.test"),
        (f"registry=https://npm.acme.test/\n//npm.acme.test/:_authToken = {OPAQUE}\n", "npm",
         f"secret={OPAQUE} host=npm.acme.test"),
        (f"//acme.jfrog.io/artifactory/api/npm/x/:_authToken={OPAQUE}", "artifactory",
         f"secret={OPAQUE} host=acme.jfrog.io"),
        (f"//npm.acme.test/repo/:_authToken={OPAQUE}", "npm", f"secret={OPAQUE}"),
        (f"//npm.acme.test/repo/:_auth={b64encode(b'me:pw1').decode()}", "basic_auth_url",
         "username=me password=pw1 host=npm.acme.test path=repo"),
        (f"//npm.acme.test/:username=me\n//npm.acme.test/:_password={b64encode(b'pw').decode()}", "basic_auth_url",
         "username=me password=pw host=npm.acme.test"),
        ("[a]\nx = y\n[own]\nrepository = https://pkg.acme.test/up\nusername = me\npassword = p%w", "basic_auth_url",
         "username=me password=p%w host=pkg.acme.test path=up"),
    ],
)  # fmt: skip
def test_files_of_one_log_in(text: str, kind: str, expected: str) -> None:
    assert classify(text) == (kind, parts(expected))


def test_a_vendors_token_in_a_file_is_that_token() -> None:
    token = makers.github()
    assert classify(f"machine github.com login x password {token}") == ("github_pat", {"secret": token})
    assert classify(f"//npm.pkg.github.com/:_authToken={token}") == ("github_pat", {"secret": token})
    index = makers.make("pypi")
    assert classify(f"[pypi]\nusername = __token__\npassword = {index}") == ("pypi", {"secret": index})


@pytest.mark.parametrize(
    "text",
    [
        "machine a login x password y\nmachine b login z password w",
        "machine a login x password",
        "//h.test/:_authToken=${NPM_TOKEN}",
        "//a.test/:_authToken=x1\n//b.test/:_authToken=x2",
        "//a.test/:_password=!!!",
        "//a.test/:_password=cHc=",
        "[a]\nusername=u\npassword=p\n[b]\nusername=u\npassword=q",
        "[a]\npassword=p",
        "[a\npassword",
        "[a]\nrepository = https://[\nusername=u\npassword=p",
        "x" * 300_000,
    ],
    ids=range(11),
)
def test_files_of_several_log_ins_or_none_stay_one_text(text: str) -> None:
    assert credfiles.take(text) is None


def test_docker_files_of_other_forms() -> None:
    login = b64encode(b"me:pw").decode()
    own = json.dumps({"auths": {"registry.acme.test": {"auth": login}}}, separators=(",", ":"))
    expected = ("ghcr_generic_registry", {"username": "me", "password": "pw", "host": "registry.acme.test"})
    assert classify(b64encode(own.encode()).decode()) == expected
    assert classify(json.dumps({"https://registry.acme.test/v1/": {"auth": login}})) == expected
    key = makers.gcp_service_account()
    for user, password in (("_json_key", key), ("_json_key_base64", b64encode(key.encode()).decode())):
        held = {"auths": {"eu.gcr.io": {"username": user, "password": password}}}
        assert classify(json.dumps(held))[0] == "gcp_sa"
    assert split.docker_base64("eyJhdXRocyI!") is None


def pfx(password: bytes | None) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "acme.test")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now).not_valid_after(now + dt.timedelta(days=9)).sign(key, hashes.SHA256())
    )  # fmt: skip
    way = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return b64encode(pkcs12.serialize_key_and_certificates(b"x", key, certificate, None, way)).decode()


def test_a_pfx_without_a_password_is_key_and_certificate() -> None:
    kind, found = classify(pfx(None))
    assert kind == "private_key_tls"
    assert found["secret"].startswith("-----BEGIN PRIVATE KEY")
    assert found["certificate"].startswith("-----BEGIN CERTIFICATE")
    locked = pfx(b"sesame")
    assert classify(locked) == ("private_key_tls", {"secret": locked})


@given(st.text(), st.sampled_from(["clusters:\nserver", "machine x password ", "//h/:_authToken=", "[a]\npassword=",
                                   "MIIaaaIBAzCC", "jdbc:oracle:thin:", "jdbc:db2://", "mssql://h;user="]))  # fmt: skip
def test_no_text_makes_it_raise(text: str, before: str) -> None:
    for take in (credfiles.take, split.uri, split.fields, split.docker_base64):
        take(before + text)
