"""Files for going over to short-lived sessions: they parse, every value is in its place, and nothing is overwritten."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_made import made
from stage import BOOK
from test_engine import RUN, Desk

from lapse.commands.playbooks import successor
from lapse.commands.setup import Setup
from lapse.exits import Exit, Stop
from lapse.ledger import Ownership, Scan
from lapse.rotation import Desk as Office
from playbooks.journal import What
from playbooks.plan import Mode
from playbooks.propose import ProposalError, names, proposal, rendered, values, write
from playbooks.specfile import library
from rotators.step import Done
from verifier.model import CredentialID, Evidence, Finding, Identity, KindID, Live, Place, SourceKind
from verifier.ports import Judged
from verifier.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
SAMPLES = {
    "account": "123456789012", "user": "ci-bot", "repository": "acme/app", "region": "eu-central-1",
    "project": "acme-prod", "project_number": "987654321098", "tenant": GUID, "client": GUID.replace("0f", "1e"),
    "service_account": "ci@acme-prod.iam.gserviceaccount.com",
}  # fmt: skip
FEDERATED = {b.replace.files for b in library().values() if b.replace is not None and b.replace.files}


def filled(name: str, said: dict[str, str] | None = None) -> dict[str, str]:
    wanted = proposal(name).fields
    return values(name, {}, {**{n: v for n, v in SAMPLES.items() if n in wanted}, **(said or {})})


def parsed(made_files: dict[str, str]) -> Iterator[Any]:
    """Read every file as what it is for."""
    for name, text in made_files.items():
        if name.endswith(".json"):
            yield json.loads(text)
        elif name.endswith(".yml"):
            yield yaml.safe_load(text)
        elif name.endswith(".sh"):
            checked = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
            assert checked.returncode == 0, checked.stderr
        else:
            assert name.endswith((".tf", ".md")), f"nobody checks {name}"
            assert text.count("{") == text.count("}")


def test_all_that_the_issue_names_are_there_and_used() -> None:
    assert set(names()) == FEDERATED == {
        "github-oidc-aws", "github-wif-gcp", "github-federation-entra", "github-federation-openai",
        "github-federation-anthropic",
    }  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_file_parses_and_no_field_is_left(name: str) -> None:
    made_files = rendered(name, filled(name))
    assert {"README.md", "workflow.yml"} <= made_files.keys()
    list(parsed(made_files))
    text = "\n".join(made_files.values())
    assert "[[" not in re.sub(r"\[ \"\$\(", "", text)
    assert "]]" not in text
    for field, value in filled(name).items():
        assert value in text, f"{field} is asked for and used nowhere"
    assert "acme/app" in made_files["README.md"]
    for page in proposal(name).docs:
        assert page.startswith("https://")
    workflow = yaml.safe_load(made_files["workflow.yml"])
    assert workflow["permissions"] == {"id-token": "write", "contents": "read"}
    assert "${{ secrets." not in made_files["workflow.yml"], "nothing is stored any more"


def test_only_this_repository_and_ref_are_trusted() -> None:
    subject = "repo:acme/app:ref:refs/heads/main"
    aws = json.loads(rendered("github-oidc-aws", filled("github-oidc-aws"))["trust-policy.json"])
    (statement,) = aws["Statement"]
    assert statement["Condition"]["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": subject,
    }
    provider = "oidc-provider/token.actions.githubusercontent.com"
    assert statement["Principal"] == {"Federated": f"arn:aws:iam::123456789012:{provider}"}
    entra = json.loads(
        rendered("github-federation-entra", filled("github-federation-entra"))["federated-credential.json"]
    )
    assert (entra["subject"], entra["audiences"]) == (subject, ["api://AzureADTokenExchange"])
    google = rendered("github-wif-gcp", filled("github-wif-gcp"))["apply.sh"]
    assert "assertion.repository == 'acme/app' && assertion.ref == 'refs/heads/main'" in google


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_value_breaks_out_of_its_file(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names()))
    field = data.draw(st.sampled_from(sorted(proposal(name).fields)))
    pattern = proposal(name).fields[field].pattern
    value = data.draw(st.one_of(st.from_regex(pattern, fullmatch=True), st.text(max_size=20)))
    if value and re.fullmatch(pattern, value, re.ASCII) is None:
        with pytest.raises(ProposalError, match=field):
            filled(name, {field: value})
        return
    said = filled(name, {field: value or SAMPLES.get(field, "")})
    if value:
        assert not set("\"'`$\\;&|<>(){}\n ") & set(value)
    list(parsed(rendered(name, said)))


def test_what_is_missing_wrong_or_unknown_is_named() -> None:
    with pytest.raises(ProposalError, match=r"still to be said: account \(AWS account number .*\), user .*--set"):
        rendered("github-oidc-aws", values("github-oidc-aws", {}, {"repository": "acme/app"}))
    with pytest.raises(ProposalError, match="that is no AWS account number"):
        values("github-oidc-aws", {}, {"account": "12"})
    with pytest.raises(ProposalError, match="has no such field, only account"):
        values("github-oidc-aws", {}, {"acount": "123456789012"})
    for wrong in ("nope", "../library", ""):
        with pytest.raises(ProposalError, match="there is no proposal"):
            proposal(wrong)
    known = values("github-oidc-aws", {"owner": "bot", "account": "210987654321"}, {"account": "123456789012"})
    assert (known["user"], known["account"], known["role"]) == ("bot", "123456789012", "github-actions")


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path) -> None:
    files = rendered("github-oidc-aws", filled("github-oidc-aws"))
    written = write(tmp_path / "deep" / "oidc", files)
    assert {p.name: p.read_text() for p in written} == files
    other = tmp_path / "other"
    other.mkdir()
    (other / "workflow.yml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ProposalError, match="is not overwritten"):
        write(other, files)
    assert [p.name for p in other.iterdir()] == ["workflow.yml"]
    with pytest.raises(ProposalError, match="cannot write"):
        write(written[0], {"x": "y"})


def test_the_step_names_the_command() -> None:
    desk = Desk(BOOK.replace('suggest = "use sessions"', 'suggest = "use sessions"\nfiles = "github-oidc-aws"'))
    desk.start()
    assert isinstance(desk.drive(), Done)
    done = desk.engine.state(RUN).done("replace")
    assert done is not None
    assert f"`lapse playbooks successor {RUN} -o FOLDER`" in done.text


@pytest.mark.parametrize("by", ["playbook", "key", "run"])
def test_it_is_filled_with_what_is_known_of_the_key(
    by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "lapse.toml"
    config.write_text(f'[ledger]\nurl = "{tmp_path}/ledger.db"\nkey = "env:LAPSE_TEST_KEK"\n')
    key = "AKIA" + "Q" * 16
    name = CredentialID("aws-" + "ab" * 16)
    secret = "s" * 40
    with made(tmp_path) as ledger:
        finding = Finding(
            KindID("aws_akia"), {"id": Secret(key), "secret": Secret(secret)},
            Place(SourceKind.GIT, repository="acme/app", path=".env"), "test", "x",
        )  # fmt: skip
        ledger.ingest(Scan("test", "report.json", "generic"), [(finding, name, "AKIA…")])
        ledger.mark([name], owner=Ownership.OURS)
        evidence = Evidence("POST https://sts/", 200, "", "0" * 64, "aws@0", ledger.key(name).first_seen, "sts")
        who = Identity(principal="arn:aws:iam::123456789012:user/team/bot", account="123456789012")
        ledger.record([Judged(name, KindID("aws_akia"), Live(evidence, who), ledger.key(name).first_seen)])
        desk = Office(Setup.of(config), ledger)
        plan = desk.plan(desk.key(name), Mode.GRACEFUL, "aws-access-key", {"store.path": "x"})
        desk.engine.start("r-proposed", plan, "ann")
        ledger.rotations.append("r-proposed", "preflight", What.DONE, "", {"owner": "other-bot"})
    said = ("repository=acme/app",)
    what = {"playbook": "aws-access-key", "key": name, "run": "r-prop"}[by]
    more = ("account=123456789012", "user=bot") if by == "playbook" else ()
    assert successor(what, None, (), config) is Exit.OK
    listed = capsys.readouterr().out
    assert ("123456789012" in listed) is (by != "playbook")
    assert "(to be said)" in listed
    folder = tmp_path / "out"
    assert successor(what, folder, (*said, *more), config) is Exit.OK
    text = "".join(p.read_text() for p in folder.iterdir())
    user = {"playbook": "bot", "key": "bot", "run": "other-bot"}[by]
    assert f'--user-name "{user}"' in text
    assert "arn:aws:iam::123456789012:role/github-actions" in text
    assert secret not in text + listed
    with pytest.raises(Stop, match="not overwritten"):
        successor(what, folder, (*said, *more), config)
    shutil.rmtree(folder)
    with pytest.raises(Stop, match=r"still to be said: .*repository"):
        successor(what, folder, (), config)
    assert not folder.exists()
    for wrong, words in (
        ("self-revoke", "no files"),
        ("postgres-to-static", "in the rotation itself"),
        ("azure-storage-key", "Entra authorisation"),
        ("nope", "no playbook, no rotation"),
    ):
        with pytest.raises(Stop, match=words):
            successor(wrong, None, (), config)
