"""What consumers, stores and session killers can tell before anything changes: nothing is written to find it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from aws_world import World
from hands import ANY_KEY, admin, credential
from sim_http import Sim
from sim_kubernetes import TOKEN as KUBE
from sim_kubernetes import Cluster
from test_github_actions import TOKEN as GITHUB
from test_github_actions import Actions
from test_gitlab_ci import TOKEN as GITLAB
from test_gitlab_ci import GitLab

from rotators.consumers import aws_version_stage, command, github_actions, gitlab_ci, kubernetes, webhook
from rotators.interface import Forewarned, ProviderError, SessionKiller, Trouble
from rotators.sessions import aws_deny, vault_revoke
from rotators.stores import aws_secrets_manager, vault_kv, vault_static_creds

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server


def said(hand: Any, *about: Any) -> str:
    assert isinstance(hand, SessionKiller if about else Forewarned)
    return "; ".join(f.text for f in hand.preflight(*about))


def refusal(hand: Any, trouble: Trouble, words: str, *about: Any) -> None:
    with pytest.raises(ProviderError, match=words) as e:
        hand.preflight(*about)
    assert e.value.trouble is trouble


OLD = credential("any", id="any", secret="any")


def only_reads(sim: Sim) -> None:
    posts = {a.path for a in sim.asked if a.method != "GET"}
    assert posts <= {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}


def test_github_tells_token_repository_and_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GH_TOKEN", raising=False)
    monkeypatch.setenv("GITHUB_TOKEN", GITHUB)
    actions = Actions()
    with Sim(actions) as sim:
        here = {**sim.settings, "repository": "acme/app", "name": "KEY"}
        assert "does not tell whether it may write" in said(github_actions.make(here))
        actions.headers = {"X-OAuth-Scopes": "repo, workflow"}
        assert "lets it write" in said(github_actions.make(here))
        actions.headers = {"X-OAuth-Scopes": "public_repo"}
        refusal(github_actions.make(here), Trouble.DENIED, "lacks the scope repo, it has public_repo")
        refusal(github_actions.make({**here, "repository": "acme/no"}), Trouble.GONE, "acme/no")
        refusal(github_actions.make({**here, "environment": "no"}), Trouble.GONE, "404")
        monkeypatch.setenv("GITHUB_TOKEN", "another")
        refusal(github_actions.make(here), Trouble.DENIED, "403")
        only_reads(sim)
    assert actions.held == {}


def test_gitlab_tells_variable_and_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_TOKEN", GITLAB)
    gitlab = GitLab()
    gitlab.add("acme/app", "KEY")
    with Sim(gitlab) as sim:
        here = {**sim.settings, "project": "acme/app", "name": "KEY"}
        assert "may write" in said(gitlab_ci.make(here))
        gitlab.scopes = ["read_api"]
        refusal(gitlab_ci.make(here), Trouble.DENIED, "lacks the scope api, it has read_api")
        gitlab.scopes = None
        assert "does not tell" in said(gitlab_ci.make(here))
        refusal(gitlab_ci.make({**here, "name": "OTHER"}), Trouble.GONE, "is it there")
        only_reads(sim)


def test_kubernetes_tells_what_we_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBE_TOKEN", KUBE)
    kube = Cluster()
    with Sim(kube) as sim:
        here = {"server": sim.url, "namespace": "apps", "secret": "app", "name": "KEY", "restart": "deployment/api"}
        refusal(kubernetes.make(here), Trouble.GONE, "secret app")
        secret = kube.secret("app")
        refusal(kubernetes.make(here), Trouble.GONE, "deployments/api")
        kube.workload("deployments", "api")
        assert "may write and restart" in said(kubernetes.make(here))
        for what in (("update", "secrets"), ("patch", "deployments")):
            kube.forbidden = {what}
            refusal(kubernetes.make(here), Trouble.DENIED, f"may not {' '.join(what)}")
        kube.reviews = False
        assert "does not tell" in said(kubernetes.make(here))
        secret["immutable"] = True
        refusal(kubernetes.make(here), Trouble.REFUSED, "immutable")
        only_reads(sim)


def test_a_command_and_a_webhook_are_looked_at_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\ntouch {ran}\n")
    refusal(command.make({"command": str(tool)}), Trouble.GONE, "no program")
    tool.chmod(0o755)
    assert "is there" in said(command.make({"command": str(tool), "check": "true"}))
    assert "is there" in said(command.make({"command": "./tool", "folder": str(tmp_path)}))
    refusal(command.make({"command": str(tool), "check": "no-such-program"}), Trouble.GONE, "no-such-program")
    refusal(command.make({"command": "true", "folder": "/no/such"}), Trouble.GONE, "no folder")
    assert not ran.exists()
    monkeypatch.delenv("LAPSE_WEBHOOK_KEY", raising=False)
    hook = webhook.make({"url": "https://hook.example/x"})
    refusal(hook, Trouble.DENIED, "LAPSE_WEBHOOK_KEY")
    monkeypatch.setenv("LAPSE_WEBHOOK_KEY", "short")
    refusal(hook, Trouble.DENIED, "shorter")
    monkeypatch.setenv("LAPSE_WEBHOOK_KEY", "k" * 32)
    assert "nothing was sent" in said(hook)


def test_vault_tells_what_the_admin_may(openbao: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    root = admin(openbao)
    name = f"pre-{uuid4().hex[:8]}"
    monkeypatch.setenv("VAULT_ADDR", openbao.url)

    def log_in(rules: str) -> None:
        root.sys.create_or_update_policy(name, rules)
        monkeypatch.setenv("VAULT_TOKEN", root.auth.token.create(policies=[name])["auth"]["client_token"])

    def rule(path: str, *can: str) -> str:
        return f'path "{path}" {{ capabilities = [{", ".join(chr(34) + c + chr(34) for c in can)}] }}\n'

    log_in(rule(f"secret/data/{name}", "read", "create"))
    assert name in said(vault_kv.make({"path": name}))
    root.secrets.kv.v2.create_or_update_secret(name, {"a": "b"})
    refusal(vault_kv.make({"path": name}), Trouble.DENIED, "lacks update")
    log_in(rule("database/static-creds/app", "list") + rule("sys/leases/revoke-prefix/x", "update"))
    refusal(vault_static_creds.make({"role": "app"}), Trouble.DENIED, "lacks read")
    refusal(vault_revoke.make({"prefix": "x"}), Trouble.DENIED, "lacks sudo", OLD, ANY_KEY)
    refusal(vault_revoke.make({"role": "x"}), Trouble.DENIED, "auth/token/accessors", OLD, ANY_KEY)
    log_in(rule("database/static-creds/app", "read") + rule("sys/leases/revoke-prefix/x", "update", "sudo"))
    assert said(vault_static_creds.make({"role": "app"}))
    assert said(vault_revoke.make({"prefix": "x"}), OLD, ANY_KEY)


def test_aws_simulates_what_the_admin_may(ministack: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(ministack, monkeypatch)
    name = f"s-{uuid4().hex[:8]}"
    world.client("secretsmanager").create_secret(Name=name, SecretString='{"a":"b"}')

    def hands() -> list[tuple[Any, ...]]:
        return [
            (aws_secrets_manager.make({"secret": name}),),
            (aws_version_stage.make({"secret": name}),),
            (aws_deny.make({}), OLD, ANY_KEY),
        ]

    for hand in hands():
        assert said(*hand)
    weak = world.user({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["iam:Simulate*", "iam:GetUser", "sts:*",
                                                     "secretsmanager:DescribeSecret"], "Resource": "*"}],
    })  # fmt: skip
    key = world.key(weak)
    world.log_in(key.parts["id"].reveal(), key.parts["secret"].reveal())
    rights = ("secretsmanager:PutSecretValue", "secretsmanager:PutSecretValue", "iam:PutUserPolicy")
    for (hand, *about), right in zip(hands(), rights, strict=True):
        refusal(hand, Trouble.DENIED, right, *about)
