"""The one way out: what the verifier may ask, of whom, how fast, and nothing else.

`Egress` implements `verifier.exchange.Door`. The parts: `manifest` (the permitted calls), `address` (hosts and
ranges), `plumbing` (proxies, certificates), `limiter` and `breaker` (manners), `retry`, `transport` (the HTTP client).
"""

from verifier.egress.address import RefusedError
from verifier.egress.door import Egress, Exchange
from verifier.egress.limiter import HasLimits, Limits
from verifier.egress.plumbing import Settings
from verifier.egress.retry import passing, retry_after
from verifier.egress.transport import BODY_CAP

__all__ = [
    "BODY_CAP",
    "Egress",
    "Exchange",
    "HasLimits",
    "Limits",
    "RefusedError",
    "Settings",
    "passing",
    "retry_after",
]
