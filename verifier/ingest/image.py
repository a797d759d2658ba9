"""Container image references taken apart: registry, namespace, name, tag, digest. Shared by all formats."""

from __future__ import annotations

import re
from functools import lru_cache

from verifier.model import Image, LayerFate

DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_BARE_DIGEST = re.compile(r"[0-9a-f]{64}")


def sha256(digest: str | None) -> str | None:
    """Return a layer or image digest as `sha256:…`; a bare 64-digit hex gets its prefix; anything else is None."""
    if not digest:
        return None
    if _BARE_DIGEST.fullmatch(digest):
        return f"sha256:{digest}"
    return digest if DIGEST.fullmatch(digest) else None


@lru_cache(maxsize=4096)
def image(
    reference: str,
    *,
    tag: str | None = None,
    digest: str | None = None,
    layer: str | None = None,
    fate: LayerFate = LayerFate.UNKNOWN,
) -> Image:
    """Take `[registry/][namespace/]name[:tag][@digest]` apart; `tag` and `digest` fill in what the reference lacks.

    As Docker reads it: the first component is a registry only with a dot, a colon or the name `localhost`. Nothing
    is invented: no `docker.io`, no `library`, no `latest`. A schema (`docker://`) is dropped. Never raises.
    """
    rest = reference.split("://", 1)[-1].strip("/")
    rest, _, stated_digest = rest.partition("@")
    head, slash, last = rest.rpartition("/")
    name, _, stated_tag = last.partition(":")
    registry, _, namespace = head.partition("/") if slash else ("", "", "")
    if registry and not ("." in registry or ":" in registry or registry == "localhost"):
        registry, namespace = "", head
    return Image(
        name=name or reference,
        registry=registry or None,
        namespace=namespace or None,
        tag=stated_tag or tag or None,
        digest=sha256(stated_digest) or sha256(digest),
        layer=sha256(layer),
        fate=fate,
    )
