"""A process that has everything imported and forks for each command: as apart as a shell's, at a tenth of the price.

It reads one JSON object a line (`words`, `cwd`, `env`, `out`, `err`) and answers with the exit code. What the command
prints goes to the files `out` and `err`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys


def _child(order: dict[str, object]) -> None:
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    os.environ.update(order["env"])  # type: ignore[arg-type]  # text by text, as it was sent
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(str(order[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv = ["lapse", *order["words"]]  # type: ignore[misc]  # as above
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1)
    from lapse.cli import main

    main()


def serve() -> None:
    """Answer until the other end is closed."""
    import sqlalchemy.dialects.sqlite  # noqa: F401  # what nearly every command needs
    import typer.main

    from lapse.cli import app

    for package in ("lapse.commands", "verifier.ingest.formats"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    typer.main.get_command(app)
    gc.collect()
    gc.freeze()  # what was imported stays shared with the children

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
