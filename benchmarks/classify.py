"""Measures classification: microseconds of CPU per claim on the mix a large scan brings, and start-up. Prints JSON.

    python benchmarks/classify.py [--claims 100000] [--scale 1.0]

The mix follows what a scan of many public images finds: half generic high-entropy strings, the rest tokens with
distinctive shapes, halves of AWS keys, connection strings, web tokens and private keys.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import makers

from verifier.classify import Classifier, classify_all
from verifier.model import Claim, Place, SourceKind
from verifier.secret import Secret

MIX = [
    (22, "gitleaks", "generic-api-key", lambda s: makers.hexes(32, s)),
    (14, "gitleaks", "generic-api-key", lambda s: makers.draw(makers.ALNUM, 40, s)),
    (8, "gitleaks", "generic-api-key", lambda s: makers.draw(makers.ALNUM + "_-!", 24, s)),
    (6, "gitleaks", "some-new-rule", lambda s: makers.draw(makers.ALNUM, 20, s)),
    (8, "gitleaks", "github-pat", lambda s: makers.github("ghp_", s)),
    (5, "gitleaks", "gcp-api-key", lambda s: makers.make("gemini", seed=s)),
    (5, "gitleaks", "openai-api-key", lambda s: makers.make("openai", seed=s)),
    (4, "gitleaks", "slack-bot-token", lambda s: makers.make("slack_bot", seed=s)),
    (3, "gitleaks", "stripe-access-token", lambda s: makers.make("stripe", seed=s)),
    (5, "gitleaks", "aws-access-token", lambda s: makers.aws_id(seed=s)),
    (4, "gitleaks", "mailgun-private-api-token", lambda s: makers.hexes(32, s)),
    (4, "gitleaks", "beamer-api-token", lambda s: makers.draw(makers.ALNUM, 45, s)),
    (5, "gitleaks", "jwt", lambda s: makers.jwt({"sub": str(s)}, seed=s)),
    (4, "kingfisher-1.x", "kingfisher.postgres.1", lambda s: f"postgres://u{s}:{makers.hexes(12, s)}@db.example/d"),
    (3, "gitleaks", "private-key", lambda _: makers.private_key()),
]


def measure(n: int) -> dict[str, object]:
    """Return microseconds per claim for `classify`, for `classify_all` and for each sort of claim."""
    rng = random.Random(1)
    rows = rng.choices(MIX, [m[0] for m in MIX], k=n)
    claims = [
        Claim(scanner, rule, Secret(make(i % 500)), Place(SourceKind.GIT, path=f"f{i // 5}", line=i % 90), i)
        for i, (_, scanner, rule, make) in enumerate(rows)
    ]
    gc.freeze()  # a stream holds no list of claims for the collector to walk
    begun = time.process_time()
    classifier = Classifier()
    classifier.classify(claims[0])
    told: dict[str, object] = {"benchmark": "classify", "claims": n}
    told["start_ms"] = round((time.process_time() - begun) * 1e3, 1)
    for name, run in (
        ("classify", lambda: sum(1 for c in claims if classifier.classify(c))),
        ("classify_all", lambda: sum(1 for _ in classify_all(claims, classifier))),
    ):
        run()
        times = []
        for _ in range(3):
            begun = time.process_time()
            found = run()
            times.append(time.process_time() - begun)
        told[f"{name}_us_a_claim"] = round(min(times) / n * 1e6, 2)
        told["findings"] = found
    by_rule: dict[str, list[Claim]] = {}
    for c in claims:
        by_rule.setdefault(f"{c.rule} {len(c.value)}"[:40], []).append(c)  # type: ignore[arg-type]  # the mix is of one claim type
    sorts: dict[str, float] = {}
    for rule, some in Counter({r: len(s) for r, s in by_rule.items()}).most_common(18):
        begun = time.process_time()
        for c in by_rule[rule]:
            classifier.classify(c)
        sorts[rule] = round((time.process_time() - begun) / some * 1e6, 2)
    told["us_by_sort"] = sorts
    told["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return told


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--claims", type=int, default=100_000)
    options.add_argument("--scale", type=float, default=1.0, help="multiplies the claims")
    args = options.parse_args()
    print(json.dumps(measure(max(int(args.claims * args.scale), 1_000))))


if __name__ == "__main__":
    main()
