"""`lapse demo --serve`: the sandbox stays up, with the console on it, until somebody has seen enough."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.exits import Stop
from lapse.sandbox import targets
from lapse.sandbox.process import running
from lapse.sandbox.stage import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lapse.sandbox.stage import Stage
    from lapse.sandbox.world import World

ENV = "sandbox.env"
"""What another terminal reads to work in the sandbox; it holds the log-ins of the sandbox's own servers."""

SHORT = '"retire.drain" = "2s"\n"retire.soak" = "2s"'
"""Waits of a rotation that take a day each anywhere else."""

_EXECUTOR = "from lapse.web.executor import run; run(None, linger=float('inf'))"
_SHOWN = ("AWS_", "VAULT_", "XDG_", "LAPSE_")


def settings(config: str) -> str:
    """Return the sandbox's configuration with waits that somebody watches."""
    head = "[rotate.set]"
    line = next(line for line in config.splitlines() if line.startswith(head))
    return config.replace(line, f"{line}\n{SHORT}", 1)


def stay(stage: Stage, world: World) -> None:
    """Serve the console until Ctrl-C; a process of ours goes on with rotations. Whatever was started is stopped."""
    _write(stage.folder / ENV, stage.env)
    stage.head("Yours: the console in a browser, these servers behind it")
    for line in told(world):
        say(line)
    say(f"\nThe same in another terminal:  cd {shlex.quote(str(stage.folder))} && . ./{ENV} && lapse status")
    say("Ctrl-C stops everything that was started.\n")
    try:
        with ExitStack() as stack:
            ours = [sys.executable, "-P"]
            stack.enter_context(running([*ours, "-c", _EXECUTOR], cwd=stage.folder, env=stage.env))
            serve = [*ours, "-m", "lapse.cli", "serve", "--port", "0", "--quiet"]
            code = stack.enter_context(running(serve, cwd=stage.folder, env=stage.env)).wait()
    except KeyboardInterrupt:
        return
    raise Stop(f"the console ended with exit code {code}")


def told(world: World) -> list[str]:
    """Return what can be tried, as far as the servers at hand allow."""
    lines = ["Try: open a live key that is ours, choose Replace, type its id, and approve what cannot be undone."]
    if world.aws is not None and world.bao is not None:
        lines.append(f"  user/{targets.BOT} of AWS: a new key is made and kept in OpenBao, then the old one goes")
    if world.sql is not None and world.bao is not None:
        lines.append(f"  {targets.ROLE} of PostgreSQL: OpenBao sets another password (vault-database-static-role)")
    lines.append("  alice of Hugging Face: the key ends itself (playbook self-revoke)")
    return lines


def _write(file: Path, env: Mapping[str, str]) -> None:
    """Write the environment for a shell, readable by its owner alone."""
    lines = ["# For a shell that works in the sandbox: . ./" + ENV]
    lines += [f"export {n}={shlex.quote(v)}" for n, v in sorted(env.items()) if n.startswith(_SHOWN)]
    lines.append("unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy SSL_CERT_FILE")
    lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
