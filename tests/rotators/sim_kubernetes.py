"""The part of a Kubernetes API server that we use: resourceVersion, strategic merge of annotations, rollouts.

https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim_http import Asked, Reply

TOKEN = "a-service-accounts-token"


@dataclass
class Cluster:
    """`objects`: path to object. `before_write` runs just before a write is judged: somebody else's hand."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    before_write: list[Callable[[], None]] = field(default_factory=list)
    version: int = 100
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    reviews: bool = True

    def secret(self, name: str, **data: str) -> dict[str, Any]:
        found = {"metadata": {"name": name, "resourceVersion": "1"}, "type": "Opaque", "data": data}
        self.objects[f"/api/v1/namespaces/apps/secrets/{name}"] = found
        return found

    def workload(self, kind: str, name: str, replicas: int = 2) -> dict[str, Any]:
        found: dict[str, Any] = {
            "metadata": {"name": name, "generation": 1, "resourceVersion": "1"},
            "spec": {"replicas": replicas, "template": {"metadata": {}}},
            "status": {"observedGeneration": 1},
        }
        self.objects[f"/apis/apps/v1/namespaces/apps/{kind}/{name}"] = found
        self.roll(found)
        return found

    def roll(self, workload: dict[str, Any]) -> None:
        """Finish the rollout."""
        n = workload["spec"]["replicas"]
        workload["status"] = {
            "observedGeneration": workload["metadata"]["generation"],
            "updatedReplicas": n,
            "replicas": n,
            "availableReplicas": n,
        }

    def __call__(self, asked: Asked) -> Reply:
        if asked.bearer != TOKEN:
            return 401, {"kind": "Status", "reason": "Unauthorized"}
        if asked.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            what = asked.json["spec"]["resourceAttributes"]
            allowed = (what["verb"], what["resource"]) not in self.forbidden
            return (201, {"status": {"allowed": allowed}}) if self.reviews else (403, {"reason": "Forbidden"})
        found = self.objects.get(asked.path)
        if found is None:
            return 404, {"kind": "Status", "reason": "NotFound"}
        if asked.method == "GET":
            return 200, found
        if self.before_write:
            self.before_write.pop(0)()
        found = self.objects[asked.path]
        self.version += 1
        if asked.method == "PUT":
            if asked.json["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                return 409, {"kind": "Status", "reason": "Conflict"}
            new = copy.deepcopy(asked.json)
        elif asked.headers["content-type"] == "application/strategic-merge-patch+json":
            new = copy.deepcopy(found)
            more = asked.json["spec"]["template"]["metadata"]["annotations"]
            meta = new["spec"]["template"]["metadata"]
            if (meta.get("annotations") or {}) | more != (meta.get("annotations") or {}):
                meta["annotations"] = {**(meta.get("annotations") or {}), **more}
                new["metadata"]["generation"] += 1
        else:
            return 415, {}
        new["metadata"]["resourceVersion"] = str(self.version)
        found.clear()
        found.update(new)
        return 200, found
