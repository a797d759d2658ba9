"""What another process does to a ledger: `python ledger_worker.py PATH WHAT FIRST COUNT`; prints what is committed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from ledger_making import KEY, dead, ingest, judged, live

from lapse.ledger import Ledger, Select, open_ledger


def act(ledger: Ledger, what: str, number: int) -> None:
    match what:
        case "record":
            ledger.record([judged(number % 50, live() if number % 2 else dead(), number)])
        case "ingest":
            ingest(ledger, [(key, number) for key in range(50, 60)], complete=number % 3 == 0)
        case _:
            ledger.status()
            sum(1 for _ in ledger.keys(Select()))
            sum(1 for _ in ledger.due(datetime.now(UTC)))
            assert ledger.check().ok


def main() -> None:
    path, what, first, count = sys.argv[1:]
    with open_ledger(path, KEY) as ledger:
        for number in range(int(first), int(first) + int(count)):
            act(ledger, what, number)
            print(number, flush=True)  # noqa: T201  # the acknowledgement


if __name__ == "__main__":
    main()
