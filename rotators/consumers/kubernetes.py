"""A Kubernetes Secret, and a rollout restart of the workloads that read it.

The Secret is written over the version that was read (`resourceVersion`), with the run as an annotation; a workload is
restarted by the same annotation on its pod template, so a second push of one run restarts nothing.
Settings: `namespace` (`default`), `secret`, `name`/`map` (its keys, see `rotators.handing`), `restart` (by comma:
`deployment/api, statefulset/db`), those of `rotators.kubeconfig`, `ca_bundle`. The server is of the user's own
config, so private addresses are allowed; plain http is not, save on loopback (`kubectl proxy`).
https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rotators.door import Answer, Door, Route, refusal
from rotators.handing import handed, names
from rotators.interface import Fact, ProviderError, Trouble
from rotators.kubeconfig import cluster
from rotators.step import Done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rotators.interface import Settings
    from rotators.step import Outcome
    from verifier.secret import Secret

MARK = "lapse-run"
_PRIVATE = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7"
_LOOPBACK = "127.0.0.0/8,::1/128"
_TRIES = 4
_CONFLICT = 409
_KINDS = {"deployment": "deployments", "statefulset": "statefulsets", "daemonset": "daemonsets"}
_SECRET = "/api/v1/namespaces/{namespace}/secrets/{name}"  # noqa: S105  # a path
_WORKLOAD = "/apis/apps/v1/namespaces/{namespace}/{kind}/{name}"
_READ, _WRITE = Route("GET", _SECRET), Route("PUT", _SECRET)
_LOOK, _PATCH = Route("GET", _WORKLOAD), Route("PATCH", _WORKLOAD)
_MAY = Route("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")


class Kubernetes:
    """One Secret and its readers."""

    name = "kubernetes"
    permissions: Final[Mapping[str, tuple[str, ...]]] = {
        "push": ("get, update secrets", "get, patch deployments, statefulsets, daemonsets (apps)"),
        "pushed": ("get secrets", "get deployments, statefulsets, daemonsets (apps)"),
    }

    def __init__(self, settings: Settings) -> None:
        """Take the slot's settings; what cannot be restarted is `ProviderError(REFUSED)`."""
        self._settings = settings
        self._namespace = settings.get("namespace") or "default"
        self._secret = settings.get("secret", "")
        if not self._secret:
            raise ProviderError(Trouble.REFUSED, "kubernetes needs the name of a `secret`")
        names(settings)
        self._restart: list[tuple[str, str]] = []
        for item in filter(None, (text.strip() for text in settings.get("restart", "").split(","))):
            kind, _, name = item.partition("/")
            if kind not in _KINDS or not name:
                raise ProviderError(Trouble.REFUSED, f"restart: {item!r} is not of the form deployment/name")
            self._restart.append((_KINDS[kind], name))

    def preflight(self) -> Sequence[Fact]:
        """See that the Secret and its readers are there, and ask the cluster whether we may write and restart."""
        door, headers = self._open()
        secret = self._get(door, headers, _READ, {"name": self._secret}, f"secret {self._secret}")
        if secret.get("immutable"):
            raise ProviderError(Trouble.REFUSED, f"secret {self._secret} is immutable: make another and roll out")
        for kind, name in self._restart:
            self._get(door, headers, _LOOK, {"kind": kind, "name": name}, f"{kind}/{name}")
        asked = [self._may(door, headers, "update", "", "secrets", self._secret)]
        asked += [self._may(door, headers, "patch", "apps", kind, name) for kind, name in self._restart]
        told = "we may write and restart" if all(asked) else "the cluster does not tell whether we may write"
        return [Fact("consumer", f"secret {self._secret} and {len(self._restart)} workloads are there; {told}")]

    def _may(  # what the question has
        self, door: Door, headers: Mapping[str, str], verb: str, group: str, resource: str, name: str
    ) -> bool:
        """Ask a SelfSubjectAccessReview: False where the cluster does not answer; a no is `ProviderError(DENIED)`."""
        what = {"namespace": self._namespace, "verb": verb, "group": group, "resource": resource, "name": name}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what},
        }
        answer = door.call(_MAY, headers=headers, json=body)
        if not answer.good:
            return False
        if not (answer.json().get("status") or {}).get("allowed"):
            raise ProviderError(Trouble.DENIED, f"we may not {verb} {resource} {name} in {self._namespace}")
        return True

    def push(self, fields: Mapping[str, Secret], run: str) -> Outcome:
        """Write the values and restart the readers; a write that somebody outran is read and tried again."""
        values = handed(fields, self._settings)
        data = {key: b64encode(value.reveal().encode()).decode() for key, value in values.items()}
        door, headers = self._open()
        for _ in range(_TRIES):
            secret = self._get(door, headers, _READ, {"name": self._secret}, f"secret {self._secret}")
            if secret.get("immutable"):
                raise ProviderError(Trouble.REFUSED, f"secret {self._secret} is immutable: make another and roll out")
            meta = secret["metadata"]
            if not _has(secret, data, run):
                meta["annotations"] = {**(meta.get("annotations") or {}), MARK: run}
                secret["data"] = {**(secret.get("data") or {}), **data}
                answer = self._call(door, _WRITE, headers, {"name": self._secret}, secret)
                if answer.status == _CONFLICT:
                    continue
                if not answer.good:
                    raise refusal(answer, f"write secret {self._secret} in {self._namespace}")
            break
        else:
            raise ProviderError(
                Trouble.CONFLICT, f"somebody else keeps changing secret {self._secret}", timedelta(seconds=5)
            )
        for kind, name in self._restart:
            self._roll(door, headers, kind, name, run)
        return Done(f"secret {self._secret} written, {len(self._restart)} workloads restarted")

    def _roll(self, door: Door, headers: Mapping[str, str], kind: str, name: str, run: str) -> None:
        about = self._get(door, headers, _LOOK, {"kind": kind, "name": name}, f"{kind}/{name}")
        if _template(about).get(MARK) == run:
            return
        patch = {"spec": {"template": {"metadata": {"annotations": {MARK: run}}}}}
        more = {**headers, "Content-Type": "application/strategic-merge-patch+json"}
        answer = self._call(door, _PATCH, more, {"kind": kind, "name": name}, patch)
        if not answer.good:
            raise refusal(answer, f"restart {kind}/{name} in {self._namespace}")

    def pushed(self, run: str) -> bool | None:
        """Tell whether the Secret is of this run and every reader's rollout of it is complete."""
        door, headers = self._open()
        secret = self._get(door, headers, _READ, {"name": self._secret}, f"secret {self._secret}")
        if (secret["metadata"].get("annotations") or {}).get(MARK) != run:
            return False
        workloads = (
            self._get(door, headers, _LOOK, {"kind": kind, "name": name}, f"{kind}/{name}")
            for kind, name in self._restart
        )
        return all(_template(w).get(MARK) == run and _rolled(w) for w in workloads)

    def _open(self) -> tuple[Door, dict[str, str]]:
        found = cluster(self._settings)
        parts = urlsplit(found.server)
        near = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if parts.scheme != "https" and not near:
            raise ProviderError(Trouble.REFUSED, "the Kubernetes server is not https: the token would go in the clear")
        allow = _LOOPBACK if near else f"{_PRIVATE},{_LOOPBACK}"
        settings = {"allow_private": allow, "ca_bundle": self._settings.get("ca_bundle", "")}
        roots = (found.ca,) if found.ca else ()
        door = Door(found.server, (_READ, _WRITE, _LOOK, _PATCH, _MAY), settings, roots=roots, identity=found.identity)
        return door, {"Authorization": f"Bearer {found.token}"} if found.token else {}

    def _call(
        self, door: Door, route: Route, headers: Mapping[str, str], fill: Mapping[str, str], json: object = None
    ) -> Answer:
        return door.call(route, fill={"namespace": self._namespace, **fill}, headers=headers, json=json)

    def _get(
        self, door: Door, headers: Mapping[str, str], route: Route, fill: Mapping[str, str], what: str
    ) -> dict[str, Any]:
        answer = self._call(door, route, headers, fill)
        if not answer.good:
            raise refusal(answer, f"read {what} in {self._namespace}")
        found: dict[str, Any] = answer.json()
        return found


def _has(secret: Mapping[str, Any], data: Mapping[str, str], run: str) -> bool:
    held = secret.get("data") or {}
    marked = (secret["metadata"].get("annotations") or {}).get(MARK) == run
    return marked and all(held.get(key) == value for key, value in data.items())


def _template(workload: Mapping[str, Any]) -> Mapping[str, str]:
    return workload["spec"]["template"].get("metadata", {}).get("annotations") or {}


def _rolled(workload: Mapping[str, Any]) -> bool:
    """Tell whether every pod is of the newest template and there is no old one left."""
    status, meta = workload.get("status") or {}, workload["metadata"]
    if int(status.get("observedGeneration", 0)) < int(meta.get("generation", 0)):
        return False
    if "desiredNumberScheduled" in status:  # a DaemonSet
        wanted = int(status["desiredNumberScheduled"])
        return int(status.get("updatedNumberScheduled", 0)) == wanted == int(status.get("numberAvailable", 0))
    wanted = int(workload["spec"].get("replicas", 1))
    counts = [int(status.get(name, 0)) for name in ("updatedReplicas", "replicas", "availableReplicas")]
    return all(count == wanted for count in counts)


def make(settings: Settings) -> Kubernetes:
    """Return the consumer for a playbook's slot."""
    return Kubernetes(settings)
