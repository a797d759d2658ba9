"""Which report formats there are, and which one a file is of."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from verifier.ingest import formats as folder
from verifier.ingest.interface import Likelihood, UnreadableReport

if TYPE_CHECKING:
    from verifier.ingest.interface import Format


@cache
def formats() -> dict[str, Format]:
    """Return every format by its name, sorted: the `FORMATS` of each module of `verifier.ingest.formats`."""
    found: dict[str, Format] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        if module.name.startswith("_"):
            continue
        for format_ in import_module(f"{folder.__name__}.{module.name}").FORMATS:
            if format_.name in found:
                msg = f"two report formats are named {format_.name}"
                raise ValueError(msg)
            found[format_.name] = format_
    return dict(sorted(found.items()))


def named(name: str, file: str) -> Format:
    """Return the format that `--as` names; an unknown name is `UnreadableReport` with the nearest one."""
    if format_ := formats().get(name):
        return format_
    near = get_close_matches(name, formats(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UnreadableReport(
        file, "no report format has the name given with --as", f"{hint}`lapse formats` lists them all"
    )


def sniffed(head: bytes, file: str) -> Format:
    """Return the one format that fits the first bytes best; none or several is `UnreadableReport`."""
    scores = [(format_.sniff(head), format_) for format_ in formats().values()]
    best = max((score for score, _ in scores), default=Likelihood.NO)
    fitting = [format_ for score, format_ in scores if score is best]
    if best is Likelihood.NO:
        remedy = "`lapse formats` lists what can be read, and --as FORMAT forces one"
        raise UnreadableReport(file, "its first bytes are of no report format known here", remedy)
    if len(fitting) > 1:
        names = ", ".join(format_.name for format_ in fitting)
        raise UnreadableReport(
            file, f"it may be {names}", "say which with --as FORMAT (`lapse formats` says what each is)"
        )
    return fitting[0]
