"""A process that rotates the small world's key for real: started, killed and started again by the chaos test.

    python rotor.py FOLDER ENGINE-URL start|resume|undo SECONDS

It kills itself with SIGKILL after SECONDS (0: never), counted from when it has its modules: nothing gets to clean up.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from ledger_made import KEK
from stage import planned
from world import Small

from lapse.ledger import open_ledger
from playbooks.durable import Place, Worker
from playbooks.engine import Engine
from playbooks.plan import Mode

RUN = "r-chaos"
QUICK = """
id = "sim"
title = "A key of the small world, in a hurry"
for = ["sim_key"]
issuer = "sim"
[store]
use = "simstore"
write = { key_id = "{new.id}", key_secret = "{new.secret}" }
[create]
[verify]
times = 2
within = "60s"
every = "50ms"
[[consumers]]
use = "simconsumer"
[[sessions]]
use = "simsessions"
[retire]
drain = "0s"
soak = "50ms"
[prove]
times = 3
window = "300ms"
"""


def main(folder: Path, url: str, what: str) -> None:
    small = Small(folder / "world.db")
    with open_ledger(folder / "ledger.db", KEK) as ledger:
        engine = Engine(ledger.rotations, small.world())
        with Worker(engine, Place(url, folder / "engine.lock", ledger.name), poll=0.02) as worker:
            if RUN not in ledger.rotations.runs():
                engine.start(RUN, planned(small, QUICK, Mode(small.get("mode", "graceful"))), "bob")
                engine.approve(RUN, "ann", ("delete",))
            elif what == "undo" and not engine.state(RUN).undoing and engine.state(RUN).end is None:
                engine.undo(RUN, "bob")
            state = engine.state(RUN)
            if state.end is None:
                turn = state.turn if what == "start" else engine.resume(RUN, "bob")
                worker.go(RUN, turn)
            sys.stdout.write(f"{worker.follow(RUN, timedelta(seconds=20)).end}\n")


def doom(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if after := float(sys.argv[4]):
        threading.Thread(target=doom, args=(after,), daemon=True).start()
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    sys.stdout.flush()
    os._exit(0)
