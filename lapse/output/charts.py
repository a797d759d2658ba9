"""Charts as SVG made here: a title, a description, and a table behind, so that nobody depends on seeing the picture.

Colours are classes of the style sheet (`c-live`, `c-dead`, …), so that they follow light and dark. No script, no inline
style: a page may forbid both. Every label is hostile text and is escaped.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from markupsafe import Markup
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _LABEL, _ROW, _BAR = 640, 210, 26, 16
_HEIGHT, _FOOT = 150, 22
_LONGEST = 26
_numbers = count(1)


class Series(Struct, frozen=True):
    """One colour of a chart: its name, and its CSS class (`c-…`)."""

    name: str
    colour: str


LIVE = Series("live", "c-live")
DEAD = Series("dead", "c-dead")
UNDECIDED = Series("undecided", "c-undecided")


def bars(title: str, heads: tuple[str, str], rows: Sequence[tuple[str, int]], series: Series = LIVE) -> Markup:
    """Return a figure of horizontal bars, one a row of (label, number)."""
    return stacked(title, heads[0], [Series(heads[1], series.colour)], [(label, (n,)) for label, n in rows])


def stacked(title: str, head: str, series: Sequence[Series], rows: Sequence[tuple[str, tuple[int, ...]]]) -> Markup:
    """Return a figure of horizontal bars, each made of one piece a series."""
    most = max((sum(values) for _, values in rows), default=0)
    if not most:
        return _nothing(title)
    space = _WIDTH - _LABEL - 70
    drawn: list[Markup] = []
    for i, (label, values) in enumerate(rows):
        y, x = i * _ROW, float(_LABEL)
        drawn.append(
            Markup('<text class="c-text" x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LABEL - 10, y + _BAR, _cut(label)
            )
        )
        for one, value in zip(series, values, strict=True):
            width = max(value / most * space, 1.5) if value else 0.0
            if value:
                drawn.append(
                    Markup(
                        '<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>'
                    ).format(one.colour, x, y + 3, width, _BAR, f"{label}: {value:,} {one.name}")
                )
            x += width
        drawn.append(
            Markup('<text class="c-text" x="{:.1f}" y="{}">{}</text>').format(x + 6, y + _BAR, f"{sum(values):,}")
        )
    return _figure(title, len(rows) * _ROW + 4, drawn, head, series, rows)


def columns(title: str, head: str, series: Sequence[Series], rows: Sequence[tuple[str, tuple[int, ...]]]) -> Markup:
    """Return a figure of upright columns side by side, one group a row: for days and nights."""
    most = max((max(values, default=0) for _, values in rows), default=0)
    if not most:
        return _nothing(title)
    step = _WIDTH / len(rows)
    width = max(step / (len(series) + 1), 1.5)
    drawn: list[Markup] = []
    for i, (label, values) in enumerate(rows):
        for j, (one, value) in enumerate(zip(series, values, strict=True)):
            if not value:
                continue
            height = max(value / most * (_HEIGHT - 16), 2.0)
            drawn.append(
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
                ).format(
                    one.colour, i * step + j * width, _HEIGHT - height, width, height, f"{label}: {value:,} {one.name}"
                )
            )
    drawn.append(Markup('<line class="c-axis" x1="0" x2="{}" y1="{}" y2="{}"/>').format(_WIDTH, _HEIGHT, _HEIGHT))
    for at, anchor, label in ((0, "start", rows[0][0]), (_WIDTH, "end", rows[-1][0])):
        drawn.append(
            Markup('<text class="c-text" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                at, _HEIGHT + 18, anchor, label
            )
        )
    drawn.append(Markup('<text class="c-text" x="0" y="12">{}</text>').format(f"most: {most:,}"))
    return _figure(title, _HEIGHT + _FOOT, drawn, head, series, [r for r in rows if any(r[1])])


def _figure(
    title: str,
    height: int,
    drawn: Sequence[Markup],
    head: str,
    series: Sequence[Series],
    rows: Sequence[tuple[str, tuple[int, ...]]],
) -> Markup:
    name = f"chart{next(_numbers)}"
    legend = (
        Markup('<p class="legend">{}</p>').format(
            Markup(" ").join(
                Markup(
                    '<span><svg width="12" height="12" aria-hidden="true"><rect class="{}" width="12" height="12"/>'
                    "</svg> {}</span>"
                ).format(s.colour, s.name)
                for s in series
            )
        )
        if len(series) > 1
        else Markup("")
    )
    picture = Markup(
        '<svg class="chart" role="img" aria-labelledby="{0}" viewBox="0 0 {1} {2}" preserveAspectRatio="xMinYMin meet">'
        '<title id="{0}">{3}</title>{4}</svg>'
    ).format(name, _WIDTH, height, f"{title}; the figures are in the table below", Markup("").join(drawn))
    heads = Markup("").join(Markup('<th scope="col" class="n">{}</th>').format(s.name) for s in series)
    body = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            label, Markup("").join(Markup('<td class="n">{}</td>').format(f"{v:,}") for v in values)
        )
        for label, values in rows
    )
    table = Markup(
        "<details><summary>{}</summary><table><caption>{}</caption><thead><tr>"
        '<th scope="col">{}</th>{}</tr></thead><tbody>{}</tbody></table></details>'
    ).format(f"Figures: {title.lower()}", title, head, heads, body)
    return Markup('<figure class="chart-box"><figcaption>{}</figcaption>{}{}{}</figure>').format(
        title, legend, picture, table
    )


def _nothing(title: str) -> Markup:
    return Markup(
        '<figure class="chart-box"><figcaption>{}</figcaption><p class="muted">None yet.</p></figure>'
    ).format(title)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else "…" + text[-(_LONGEST - 1) :]
