"""DBOS's own recovery under the id of a dead executor: `python -m playbooks.recover`; URL, id and version on stdin.

It may be started in advance: it waits for them, and ends when whoever started it does without a word. Whoever tells it
holds the dead one's lock (`playbooks.seat`). It knows no workflow, listens to no queue, and leaves as soon as nothing
is pending under that id: queue, partition, delay and count of attempts stay as they were.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from dbos import DBOS

from playbooks.place import IDLE_SECONDS, Json

PATIENCE = 10.0
"""Seconds after which it leaves whatever is still pending to the next attempt."""


def main(url: str, dead: str, version: str) -> None:
    """Recover, then leave."""
    logging.getLogger("dbos").setLevel(logging.CRITICAL)
    DBOS(
        config={
            "name": "lapse",
            "application_version": version,
            "executor_id": dead,
            "system_database_url": url,
            "serializer": Json(),
            "run_migrations": False,
            "enable_otlp": False,
            "log_level": "CRITICAL",
            "sys_db_idle_transaction_timeout_sec": IDLE_SECONDS,
            "sys_db_pool_size": 2,
        }
    )
    DBOS.listen_queues([])
    DBOS.launch()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and DBOS.list_workflows(
        status="PENDING", executor_id=dead, load_input=False, load_output=False
    ):
        time.sleep(0.02)


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if told := sys.stdin.read():
        main(*json.loads(told))
    os._exit(0)
