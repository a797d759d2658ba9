"""`lapse demo`: a leak, a real scanner, real verdicts, all on this machine; every command is shown as it is run."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lapse.exits import Exit, Stop
from lapse.sandbox import leak
from lapse.sandbox.image import save
from lapse.sandbox.rotations import Rotations
from lapse.sandbox.servers import program
from lapse.sandbox.stage import Stage, say
from lapse.sandbox.world import World
from verifier.catalogue import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

ARCHIVE, RESCAN, CHAT = "api.tar", "rescan.json", "chat.jsonl"
REPORTS, EVIDENCE = ("lapse.sarif", "lapse.json"), "evidence.html"
_OURS = ("LAPSE_", "AWS_", "VAULT_", "BAO_", "XDG_", "KF_")
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file"})
_TELLING = ("aws_akia", "github_pat", "openai")
"""Kinds whose story is told, the first one that is live."""


def run(keep: Path | None, *, serve: bool = False) -> Exit:
    """Run it all; leave the reports and one rotation's evidence, and everything else with `keep`.

    It touches nothing of the user's. With `serve` the leak is found and judged, and then the sandbox stays up with the
    console until Ctrl-C.
    """
    with ExitStack() as stack:
        stack.enter_context(_terminable())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lapse-sandbox-")))
        scratch.chmod(0o711)  # PostgreSQL runs as another user when we are root
        folder = _folder(keep, scratch)
        try:
            say("Starting the sandbox's servers …")
            world = stack.enter_context(World(load_catalogue(), scratch))
            show = _Show(folder, world)
            if serve:
                show.stay()
            else:
                show.play()
        except KeyboardInterrupt:
            raise Stop("interrupted; everything that was started is stopped", Exit.INTERRUPTED) from None
        left = folder if keep else None if serve else _rescue(folder)
    if left is None:
        say("\nEverything that was started is stopped, and nothing is left.")
        return Exit.OK
    say(f"\nEverything that was started is stopped. Left for you in {left}:")
    say("  " + "  ".join(sorted(p.name for p in left.iterdir() if not p.name.startswith("."))))
    return Exit.OK


def _folder(keep: Path | None, scratch: Path) -> Path:
    if keep is None:
        folder = scratch / "demo"
    elif keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise Stop(f"{keep} is not an empty folder; name a new one", Exit.USAGE)
    else:
        folder = keep.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise Stop(f"cannot make {folder}: {e.strerror}", Exit.USAGE) from None
    return folder


def _rescue(folder: Path) -> Path:
    left = Path(tempfile.mkdtemp(prefix="lapse-demo-"))
    for name in (*REPORTS, EVIDENCE):
        shutil.copy(folder / name, left)
    return left


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end us as Ctrl-C does, so that no server outlives us."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def environment(folder: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what a command is run with: the terminal's own, nothing that names other accounts, places or proxies."""
    kept = {n: v for n, v in inherited.items() if not n.startswith(_OURS) and n.lower() not in _PROXIES}
    home = folder / ".home"
    places = {f"XDG_{n}_HOME": str(home / n.lower()) for n in ("CONFIG", "DATA", "CACHE", "STATE")}
    return {**kept, **places, "HOME": str(home), "PYTHONUTF8": "1"}


class _Show:
    """Plays the demonstration in `folder`."""

    def __init__(self, folder: Path, world: World) -> None:
        self._folder, self._world = folder, world
        self._stage = Stage(folder, environment(folder, os.environ) | world.admin)
        self._head, self._lapse = self._stage.head, self._stage.lapse
        self._began = time.monotonic()

    def play(self) -> None:
        self._prepare()
        self._head("A leak")
        in_image = [k for k in self._world.planted if k.where == "image"]
        keys, kinds = len({frozenset(k.parts.items()) for k in in_image}), len({k.kind for k in in_image})
        say(
            f"{leak.NAME}, saved with `docker save` as {ARCHIVE}: 4 layers with {keys} made-up keys of {kinds} "
            "kinds. Its last step runs\n`rm -rf /app/ci /srv/.aws`: those files no longer show in a container, and "
            "still lie in the layers below."
        )
        self._scan("kingfisher.json", "a real scanner, told to call nobody")
        self._lapse("ingest", "kingfisher.json", "--source", ARCHIVE)
        say("Findings became distinct keys, each with image, layer and path. Nobody was asked yet.")
        if (self._folder / CHAT).exists():
            self._head("A second report, in the format that anything can write")
            self._lapse("ingest", CHAT)

        self._head("Which of them still work?")
        self._lapse("verify")
        say(
            "Read-only calls, one a key, and a second look at each that was refused. `dead` takes the provider's own "
            "words, twice;\nwhere its words prove too little, the key stays `undecided`. The canary and the published "
            "example were not called at all."
        )
        if key := self._live():
            self._head("The story of one")
            self._lapse("show", key)

        self._head("Weeks later: the image was rebuilt, a file was removed, no key was revoked")
        save(self._folder / ARCHIVE, leak.NAME, leak.layers(self._world.planted, without=leak.GONE))
        self._scan(RESCAN, f"the same image without {leak.GONE}")
        self._lapse("ingest", RESCAN, "--source", ARCHIVE)
        self._lapse("status", "--limit", "5")
        say("First comes what a scanner alone cannot tell: gone from the source, and it still opens the door.")

        rotation = Rotations(self._stage, self._world).play()

        self._head("For an auditor, who has no ledger")
        self._lapse("report", "--run", rotation, "-o", EVIDENCE)
        self._lapse("report", "--verify", EVIDENCE)
        self._head("For other tools")
        for name in REPORTS:
            self._lapse("report", "-o", name)
        self._lapse("ledger", "check")
        asked, took = len(self._world.saas.asked), time.monotonic() - self._began
        say(
            f"\n{asked} requests reached the simulator; all this took {took:.0f} s. "
            "`lapse providers --calls` lists every call that Lapse can make."
        )

    def stay(self) -> None:
        """Find the leak, judge it, scan the rebuilt image, and leave the rest to whoever is there."""
        from lapse.sandbox.stay import settings, stay

        self._prepare()
        (self._folder / "lapse.toml").write_text(settings(self._world.config()))
        self._scan("kingfisher.json", "a leaked image, a real scanner that calls nobody")
        self._lapse("ingest", "kingfisher.json", "--source", ARCHIVE)
        if (self._folder / CHAT).exists():
            self._lapse("ingest", CHAT)
        self._stage.prompt(["lapse", "verify"], "read-only calls, and a second look at each key that was refused")
        self._stage.quietly("verify")
        save(self._folder / ARCHIVE, leak.NAME, leak.layers(self._world.planted, without=leak.GONE))
        self._scan(RESCAN, f"the image rebuilt without {leak.GONE}")
        self._lapse("ingest", RESCAN, "--source", ARCHIVE)
        self._lapse("status", "--limit", "0")
        stay(self._stage, self._world)

    def _prepare(self) -> None:
        (self._folder / "lapse.toml").write_text(self._world.config())
        (self._folder / ".home").mkdir()
        self._stage.quietly("ledger", "init")
        planted = self._world.planted
        save(self._folder / ARCHIVE, leak.NAME, leak.layers(planted))
        if any(k.where == "chat" for k in planted):
            (self._folder / CHAT).write_text(leak.generic(planted, "chat"))
        say("Lapse on a sandbox: real servers and made-up keys on 127.0.0.1; no provider is called.")
        for name in self._world.servers:
            say(f"  runs     {name}")
        for why in self._world.missing:
            say(f"  missing  {why}; the demonstration goes on without it")

    def _scan(self, report: str, why: str) -> None:
        """Let Kingfisher scan the archive; without it, write what a scanner would have found."""
        found = program("kingfisher")
        if found is None:
            without = leak.GONE if report == RESCAN else ""
            planted = [k for k in self._world.planted if k.path != without]
            (self._folder / report).write_text(leak.generic(planted, "image"))
            say(f"(kingfisher is not installed: {report} is written by the demonstration, in the generic format)")
            return
        command = [found, "scan", ARCHIVE, "--format", "json", "--no-validate", "--no-update-check", "--no-dedup"]
        self._stage.prompt(["kingfisher", *command[1:], "-q", "-o", report], why)
        said, code = self._stage.alone([*command, "-q", "-o", report])
        if not (self._folder / report).exists():
            last = said.strip().splitlines()
            raise Stop(f"kingfisher wrote no report: {last[-1][:200] if last else f'exit code {code}'}")

    def _live(self) -> str | None:
        """Return the short id of a live key worth telling of."""
        live = {k.provider: k.key for k in reversed(self._stage.live())}
        return next((live[kind] for kind in _TELLING if kind in live), None)
