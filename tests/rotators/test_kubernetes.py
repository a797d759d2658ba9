"""A Secret and rollout restarts, against a simulator of the API server."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hands import secrets
from sim_http import Sim
from sim_kubernetes import TOKEN, Cluster

from rotators.consumers.kubernetes import make
from rotators.interface import Consumer, ProviderError, Trouble
from rotators.kubeconfig import cluster
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, Sim, dict[str, str]]]:
    world = Cluster()
    monkeypatch.setenv("KUBE_TOKEN", TOKEN)
    with Sim(world) as sim:
        yield (
            world,
            sim,
            {
                "server": sim.url,
                "namespace": "apps",
                "secret": "app",
                "map": "KEY=secret",
                "restart": "deployment/api, statefulset/db",
            },
        )


def test_written_restarted_and_known_to_be_in_place(world: tuple[Cluster, Sim, dict[str, str]]) -> None:
    kube, sim, settings = world
    secret = kube.secret("app", KEY="b2xk", OTHER="a2VwdA==")
    api, db = kube.workload("deployments", "api"), kube.workload("statefulsets", "db")
    consumer = make(settings)
    assert isinstance(consumer, Consumer)
    assert consumer.pushed("run-1") is False
    assert isinstance(consumer.push(secrets(secret="new", id="x"), "run-1"), Done)
    assert {k: b64decode(v) for k, v in secret["data"].items()} == {"KEY": b"new", "OTHER": b"kept"}
    assert secret["metadata"]["annotations"] == {"lapse-run": "run-1"}
    assert (api["metadata"]["generation"], db["metadata"]["generation"]) == (2, 2)
    assert consumer.pushed("run-1") is False  # the pods are not there yet
    kube.roll(api)
    assert consumer.pushed("run-1") is False
    kube.roll(db)
    assert consumer.pushed("run-1") is True
    assert consumer.pushed("run-0") is False

    writes = [a for a in sim.asked if a.method != "GET"]
    assert isinstance(consumer.push(secrets(secret="new", id="x"), "run-1"), Done)
    assert [a for a in sim.asked if a.method != "GET"] == writes  # nothing is restarted a second time


def test_a_daemonset_and_a_lost_pod(world: tuple[Cluster, Sim, dict[str, str]]) -> None:
    kube, _, settings = world
    kube.secret("app")
    agent = kube.workload("daemonsets", "agent")
    consumer = make({**settings, "restart": "daemonset/agent"})
    consumer.push(secrets(secret="new"), "run-1")
    status = {"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 2}
    agent["status"] = status
    assert consumer.pushed("run-1") is False
    agent["status"] = {**status, "numberAvailable": 3}
    assert consumer.pushed("run-1") is True


def test_somebody_elses_write_in_between_is_kept(world: tuple[Cluster, Sim, dict[str, str]]) -> None:
    kube, _, settings = world
    secret = kube.secret("app", OTHER="b2xk")

    def theirs() -> None:
        secret["data"]["OTHER"] = "dGhlaXJz"
        secret["metadata"]["resourceVersion"] = str(int(secret["metadata"]["resourceVersion"]) + 1)

    kube.before_write = [theirs]
    make({**settings, "restart": ""}).push(secrets(secret="new"), "run-1")
    assert {k: b64decode(v) for k, v in secret["data"].items()} == {"KEY": b"new", "OTHER": b"theirs"}
    kube.before_write = [theirs] * 9
    with pytest.raises(ProviderError, match="keeps changing") as e:
        make({**settings, "restart": ""}).push(secrets(secret="newer"), "run-2")
    assert e.value.trouble is Trouble.CONFLICT


def test_trouble(world: tuple[Cluster, Sim, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    kube, sim, settings = world
    with pytest.raises(ProviderError) as e:
        make(settings).push(secrets(secret="new"), "r")
    assert e.value.trouble is Trouble.GONE
    secret = kube.secret("app")
    with pytest.raises(ProviderError, match="deployments/api") as e:
        make(settings).push(secrets(secret="new"), "r")
    assert e.value.trouble is Trouble.GONE
    secret["immutable"] = True
    with pytest.raises(ProviderError, match="immutable"):
        make(settings).push(secrets(secret="new"), "r")
    with pytest.raises(ProviderError, match="not https"):
        make({**settings, "server": "http://10.1.2.3"}).pushed("r")
    sim.fail = [(200, {"metadata": {"resourceVersion": "1"}}), (403, {})]
    with pytest.raises(ProviderError) as e:
        make(settings).push(secrets(secret="new"), "r")
    assert e.value.trouble is Trouble.DENIED
    monkeypatch.setenv("KUBE_TOKEN", "wrong")
    with pytest.raises(ProviderError) as e:
        make(settings).pushed("r")
    assert e.value.trouble is Trouble.DENIED
    for bad in ({"secret": ""}, {"restart": "job/x"}, {"restart": "deployment/"}, {"map": ""}):
        with pytest.raises(ProviderError):
            make({**settings, **bad})


def _config(**user: Any) -> dict[str, Any]:
    return {
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://k8s.example:6443", "certificate-authority-data": "Y2E="}}
        ],
        "users": [{"name": "u", "user": user}],
    }


def test_kubeconfigs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    file = tmp_path / "config"
    (tmp_path / "tok").write_text("from-file\n")
    (tmp_path / "crt").write_bytes(b"CRT")
    monkeypatch.setenv("KUBECONFIG", f"{file}:/elsewhere")
    for user, token, identity in (
        ({"token": "t"}, "t", b""),
        ({"tokenFile": "tok"}, "from-file", b""),
        ({"client-certificate": "crt", "client-key-data": b64encode(b"KEY").decode()}, "", b"CRT\nKEY"),
    ):
        file.write_text(yaml.safe_dump(_config(**user)))
        found = cluster({})
        assert (found.server, found.token, found.ca) == ("https://k8s.example:6443", token, b"ca")
        assert found.identity == identity
    insecure = _config(token="t")
    insecure["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    for content, said in (
        (yaml.safe_dump(_config(exec={"command": "aws"})), "plug-in"),
        (yaml.safe_dump(insecure), "turns TLS checks off"),
        (yaml.safe_dump(_config(**{"client-certificate-data": "%"})), "not Base64"),
        (yaml.safe_dump(_config(tokenFile="none")), "cannot be read"),
        (yaml.safe_dump({**_config(token="t"), "current-context": "two"}), "no context named 'two'"),
        ("{", "cannot read the kubeconfig"),
    ):
        file.write_text(content)
        with pytest.raises(ProviderError, match=said):
            cluster({})


def test_a_pods_own_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    (tmp_path / "token").write_text("pods\n")
    (tmp_path / "ca.crt").write_bytes(b"CA")
    found = cluster({}, tmp_path)
    assert (found.server, found.token, found.ca) == ("https://[fd00::1]:6443", "pods", b"CA")
