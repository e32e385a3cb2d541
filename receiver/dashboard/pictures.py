"""Series of numbers, as SVG draws them. A picture stretches to the width of its place; its text stands beside it."""

from collections.abc import Sequence

from msgspec import Struct

WIDTH = 600
HEIGHT = 48
_ROOM_ABOVE = 3
"""Of the height, so that the line of the greatest value is not cut."""
_GAP = 0.25
"""Of a column's width, between two columns."""


class Sparkline(Struct, frozen=True):
    """A line and the area below it: the `d` of two paths, and the greatest value."""

    line: str
    area: str
    greatest: float


class Column(Struct, frozen=True):
    """A rectangle for one value."""

    x: float
    y: float
    width: float
    height: float
    value: float


def sparkline(values: Sequence[float], greatest: float | None = None) -> Sparkline:
    """Return the line of values, the first at the left; `greatest` is the value at the top, by default the greatest."""
    top = max(values, default=0) if greatest is None else greatest
    step = WIDTH / max(len(values) - 1, 1)
    points = [f"{index * step:.1f} {_height(value, top):.1f}" for index, value in enumerate(values)]
    if not points:
        return Sparkline("", "", top)
    line = "M" + "L".join(points if len(points) > 1 else [*points, f"{WIDTH} {points[0].split()[1]}"])
    return Sparkline(line, f"{line}V{HEIGHT}H0Z", top)


def columns(values: Sequence[float], greatest: float | None = None) -> list[Column]:
    """Return one column for each value, side by side; none has less than one unit of height unless it is 0."""
    top = max(values, default=0) if greatest is None else greatest
    step = WIDTH / max(len(values), 1)
    found = []
    for index, value in enumerate(values):
        y = min(_height(value, top), HEIGHT - 1) if value else HEIGHT
        found.append(
            Column(round(index * step, 1), round(y, 1), round(step * (1 - _GAP), 1), round(HEIGHT - y, 1), value)
        )
    return found


def _height(value: float, top: float) -> float:
    return HEIGHT - (HEIGHT - _ROOM_ABOVE) * (value / top if top else 0)
