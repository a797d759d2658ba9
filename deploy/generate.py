# ruff: noqa: INP001  # a script, not a package
"""Writes the Kubernetes egress policies from the manifest of calls: `python deploy/generate.py`.

A NetworkPolicy knows addresses and ports, not names, so `egress.yaml` lets the ports of the manifest out to everything
but private ranges and the metadata service. `cilium.yaml` names the hosts (toFQDNs). Run it with your own
`--config`: hosts of your instances and providers of your own are then on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lapse.commands.setup import Setup
from lapse.config import load

if TYPE_CHECKING:
    from verifier.exchange import Call

HERE = Path(__file__).parent / "kubernetes"
PORTS = {
    "https": 443, "http": 80, "postgresql": 5432, "mysql": 3306, "redis": 6379, "mongodb": 27017, "mssql": 1433,
    "amqp": 5671, "ldap": 636, "ftp": 21, "ssh": 22, "smtp": 587, "imap": 993,
}  # fmt: skip
PRIVATE = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "224.0.0.0/4",
]  # fmt: skip
PRIVATE6 = ["::1/128", "fc00::/7", "fe80::/10", "ff00::/8", "64:ff9b::/96"]
PODS = {"matchLabels": {"app.kubernetes.io/name": "lapse"}}
DNS = {"matchLabels": {"k8s-app": "kube-dns"}}
SYSTEM = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}


def ports(calls: tuple[Call, ...]) -> list[int]:
    """Return the ports that any call may use; an https call of the manifest never becomes a plain one in a cluster."""
    found = {PORTS[c.scheme] for c in calls if c.scheme != "http"}
    return sorted(found)


def hosts(calls: tuple[Call, ...]) -> tuple[list[str], list[str]]:
    """Return the manifest's hosts as names and as patterns; a host that is all pattern (`{host}`) is neither."""
    names, patterns = set[str](), set[str]()
    for call in calls:
        host = call.host.rpartition(":")[0] if call.host.rpartition(":")[2].isdigit() else call.host
        if "{" not in host:
            names.add(host.lower())
            continue
        labels = [("*" if "{" in label else label.lower()) for label in host.replace("}{", "}.{").split(".")]
        if "*" not in labels[-2:]:  # never a pattern over a whole top-level domain
            patterns.add(".".join(labels))
    return sorted(names), sorted(patterns)


def network_policy(calls: tuple[Call, ...]) -> dict[str, Any]:
    """Return the plain policy: DNS inside, the manifest's ports outside, nothing in."""
    out = [{"port": p, "protocol": "TCP"} for p in ports(calls)]
    dns = [{"port": 53, "protocol": p} for p in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "lapse-egress", "namespace": "lapse"},
        "spec": {
            "podSelector": PODS,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [
                {"to": [{"namespaceSelector": SYSTEM, "podSelector": DNS}], "ports": dns},
                {
                    "to": [
                        {"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE}},
                        {"ipBlock": {"cidr": "::/0", "except": PRIVATE6}},
                    ],
                    "ports": out,
                },
            ],
        },
    }


def cilium_policy(calls: tuple[Call, ...]) -> dict[str, Any]:
    """Return Cilium's policy: https to the hosts of the manifest, and to nothing else."""
    names, patterns = hosts(calls)
    fqdns = [{"matchName": n} for n in names] + [{"matchPattern": p} for p in patterns]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "lapse-egress", "namespace": "lapse"},
        "spec": {
            "endpointSelector": PODS,
            "ingress": [{}],
            "egress": [
                {
                    "toEndpoints": [
                        {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}}
                    ],
                    "toPorts": [
                        {
                            "ports": [{"port": "53", "protocol": "ANY"}],
                            "rules": {"dns": [{"matchPattern": "*"}]},
                        }
                    ],
                },
                {"toFQDNs": fqdns, "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]},
            ],
        },
    }


def database_policy() -> dict[str, Any]:
    """Return the way from the nightly job and the workers to a PostgreSQL in the same namespace, and no other."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "lapse-database", "namespace": "lapse"},
        "spec": {
            "podSelector": PODS,
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "postgresql"}}}],
                    "ports": [{"port": PORTS["postgresql"], "protocol": "TCP"}],
                }
            ],
        },
    }


HEAD = """\
# Written by deploy/generate.py from the manifest of calls (`lapse providers --calls`); run it again, with your own
# --config, after an update or a change of providers.
# {about}
"""
PLAIN = "Ports, not hosts: a NetworkPolicy knows no names. Behind a proxy of your own, allow only that instead."
BASE = "For a fleet: PostgreSQL in the same namespace. Is yours elsewhere, put its address into `to` as an ipBlock."
NAMED = "Hosts for Cilium. Log-ins at databases and hosts that only a finding or the config names are yours to add."


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Write the egress policies from the manifest of calls.")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    calls = tuple(Setup(load(options.config)).catalogue.manifest())
    for name, about, policy in (
        ("egress.yaml", PLAIN, network_policy(calls)),
        ("cilium.yaml", NAMED, cilium_policy(calls)),
        ("database.yaml", BASE, database_policy()),
    ):
        text = yaml.safe_dump(policy, sort_keys=False, width=110)
        (options.out / name).write_text(HEAD.format(about=about) + text)


if __name__ == "__main__":
    main()
