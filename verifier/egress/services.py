"""Where a service lies: DNS service records (RFC 2782), which the system's own resolver does not give."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

_PATIENCE = 5.0


async def look_up(name: str, resolver: Resolver | None = None) -> list[tuple[str, int]]:
    """Return host and port of each record of `name`, best first. Raises `OSError` when there is none to be had."""
    from dns import asyncresolver, exception  # noqa: PLC0415  # comes with pymongo; only where such a name is met

    try:
        answer = await (resolver or asyncresolver.Resolver()).resolve(name, "SRV", lifetime=_PATIENCE)
    except (exception.DNSException, OSError):
        raise OSError from None
    records = sorted(answer, key=lambda r: (r.priority, -r.weight, r.target))
    return [(r.target.to_text(omit_final_dot=True).lower(), r.port) for r in records]
