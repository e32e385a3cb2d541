"""A run's steps as a graph: where each stands and how the lines between them go, as SVG draws them. Pure functions.

Steps stand in levels, each below all that it depends on. A line to a step several levels below passes through a place
of its own in each level between, so that it crosses no step. The levels are rows, or columns where that is narrower.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

from msgspec import Struct

from receiver.domain.run_levels import edges, levels

LONGEST_LABEL = 18
"""Characters of a step's id; a longer one loses its middle, for ids that begin alike differ at their ends."""
_NODE_HEIGHT = 42
_LETTER = 7.4
"""The width of a letter of the ids, which are in a font of one width."""
_AROUND_LABEL = 40
_LEAST_WIDTH = 112
_GAP = 14
_BETWEEN_LEVELS = 32
_LANE = 10
"""The width of the place through which a line passes a level."""
_MARGIN = 4
_NARROW = 440
"""Up to this width levels are rows, and the picture fits beside another."""
_SWEEPS = 8
_STRAIGHT = 4
"""How much more than a lane a step below or above counts for where a step stands."""
_Item = tuple[str, int]
"""What stands in a level: a step, or the lines that pass it on their way from that step; and the level's number."""


class Node(Struct, frozen=True):
    """A step with its place: the left upper corner of its box."""

    step: Mapping[str, Any]
    label: str
    x: float
    y: float


class Edge(Struct, frozen=True):
    """A line between two steps: the `d` of its path and of its head; `kind` is the state of the step that it leaves."""

    line: str
    head: str
    kind: str
    title: str


class GraphPicture(Struct, frozen=True):
    """The picture. `is_wide`: it is too wide to be shown smaller, so that a reader has to move it sideways."""

    width: float
    height: float
    node_width: float
    node_height: float
    nodes: Sequence[Node]
    edges: Sequence[Edge]

    @property
    def is_wide(self) -> bool:
        """Return whether its text would be too small if the whole picture were made to fit."""
        return self.width > _NARROW


def run_graph(steps: Sequence[Mapping[str, Any]]) -> GraphPicture:
    """Return the picture of steps as the API returns them."""
    in_rows = _drawn(steps, is_down=True)
    if not in_rows.is_wide:
        return in_rows
    return min(in_rows, _drawn(steps, is_down=False), key=lambda graph: graph.width)


def shortened(text: str, most: int = LONGEST_LABEL) -> str:
    """Return a text without its middle if it is longer than `most` characters."""
    if len(text) <= most:
        return text
    end = (most - 1) // 2
    return f"{text[: most - 1 - end]}…{text[-end:]}"


class _Sizes(Struct, frozen=True):
    """How large things are along the levels (`across`), and from one level to the next (`deep`)."""

    across: float
    deep: float

    def of(self, item: _Item, home: Mapping[str, int]) -> float:
        return self.across if home[item[0]] == item[1] else _LANE


def _drawn(steps: Sequence[Mapping[str, Any]], *, is_down: bool) -> GraphPicture:
    width = max(_LEAST_WIDTH, _AROUND_LABEL + _LETTER * max(min(len(each["id"]), LONGEST_LABEL) for each in steps))
    sizes = _Sizes(width, _NODE_HEIGHT) if is_down else _Sizes(_NODE_HEIGHT, width)
    found = levels(steps)
    home = {step["id"]: number for number, level in enumerate(found) for step in level}
    pairs = edges(steps)
    rows, links = _with_lanes(found, pairs, home)
    _order(rows, links)
    centre = _places(rows, links, sizes, home)
    pitch = sizes.deep + _BETWEEN_LEVELS

    def at(item: _Item, deep: float) -> tuple[float, float]:
        point = (centre[item], _MARGIN + item[1] * pitch + deep)
        return point if is_down else (point[1], point[0])

    corner = (-width / 2, 0) if is_down else (0, -_NODE_HEIGHT / 2)
    nodes = []
    for step in steps:
        x, y = at((step["id"], home[step["id"]]), 0)
        nodes.append(Node(step, shortened(step["id"]), round(x + corner[0], 1), round(y + corner[1], 1)))
    state = {step["id"]: step["status"] for step in steps}
    lines = [
        Edge(*_line(_way(pair, home), at, sizes.deep, is_down=is_down), state[pair[0]], f"{pair[0]} → {pair[1]}")
        for pair in pairs
    ]
    across = max(centre[item] + sizes.of(item, home) / 2 for row in rows for item in row) + _MARGIN
    deep = len(rows) * pitch - _BETWEEN_LEVELS + 2 * _MARGIN
    size = (across, deep) if is_down else (deep, across)
    return GraphPicture(round(size[0], 1), round(size[1], 1), round(width, 1), _NODE_HEIGHT, nodes, lines)


def _way(pair: tuple[str, str], home: Mapping[str, int]) -> list[_Item]:
    """Return what a line passes, from the step that it leaves to the one that it leads to."""
    begin, end = pair
    return [*((begin, number) for number in range(home[begin], home[end])), (end, home[end])]


def _with_lanes(
    found: Sequence[Sequence[Mapping[str, Any]]], pairs: Iterable[tuple[str, str]], home: Mapping[str, int]
) -> tuple[list[list[_Item]], list[tuple[_Item, _Item]]]:
    """Return the levels with the lanes of the lines that pass them, and each link from one level to the next."""
    rows: list[list[_Item]] = [[(step["id"], number) for step in level] for number, level in enumerate(found)]
    links: dict[tuple[_Item, _Item], None] = {}
    for pair in pairs:
        way = _way(pair, home)
        for item in way[1:-1]:
            if item not in rows[item[1]]:
                rows[item[1]].append(item)
        links.update(dict.fromkeys(pairwise(way)))
    return rows, list(links)


def _neighbours(links: Iterable[tuple[_Item, _Item]]) -> tuple[dict[_Item, list[_Item]], dict[_Item, list[_Item]]]:
    above: dict[_Item, list[_Item]] = {}
    below: dict[_Item, list[_Item]] = {}
    for upper, lower in links:
        below.setdefault(upper, []).append(lower)
        above.setdefault(lower, []).append(upper)
    return above, below


def _order(rows: list[list[_Item]], links: Sequence[tuple[_Item, _Item]]) -> None:
    """Order each level by the middle of what it is linked to, down and up in turn, and keep the fewest crossings."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in rows], _crossings(rows, links)
    for sweep in range(_SWEEPS if fewest else 0):
        others, numbers = (above, range(1, len(rows))) if sweep % 2 == 0 else (below, range(len(rows) - 2, -1, -1))
        for number in numbers:
            place = _indexes(rows)
            rows[number].sort(key=lambda item: _mean([place[each] for each in others.get(item, [item])]))
        if (crossed := _crossings(rows, links)) < fewest:
            best, fewest = [list(row) for row in rows], crossed
    rows[:] = best


def _indexes(rows: Sequence[Sequence[_Item]]) -> dict[_Item, int]:
    return {item: index for row in rows for index, item in enumerate(row)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _crossings(rows: Sequence[Sequence[_Item]], links: Sequence[tuple[_Item, _Item]]) -> int:
    place = _indexes(rows)
    ends: dict[int, list[tuple[int, int]]] = {}
    for upper, lower in links:
        ends.setdefault(upper[1], []).append((place[upper], place[lower]))
    return sum((a - c) * (b - d) < 0 for between in ends.values() for (a, b), (c, d) in combinations(between, 2))


def _places(
    rows: Sequence[Sequence[_Item]], links: Sequence[tuple[_Item, _Item]], sizes: _Sizes, home: Mapping[str, int]
) -> dict[_Item, float]:
    """Return the middle of each item along its level: near what it is linked to, and none over another."""
    above, below = _neighbours(links)
    near = {
        item: [
            each
            for each in [*above.get(item, []), *below.get(item, [])]
            for _ in range(_STRAIGHT if home[item[0]] == item[1] and home[each[0]] == each[1] else 1)
        ]
        or [item]
        for row in rows
        for item in row
    }
    centre: dict[_Item, float] = {item: 0.0 for row in rows for item in row}
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = [_mean([centre[each] for each in near[item]]) for item in row]
            centre.update(zip(row, _apart(wanted, [sizes.of(item, home) for item in row]), strict=True))
    first = min(centre[item] - sizes.of(item, home) / 2 for item in centre)
    return {item: round(value - first + _MARGIN, 1) for item, value in centre.items()}


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Return the places nearest to those wanted (least squares) that keep the order and the distances.

    What has to be together is moved together, to the mean of what its members want (pool adjacent violators).
    """
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + _GAP)
    blocks: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        total, count = want - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            total, count = total + blocks[-1][0], count + blocks[-1][1]
            blocks.pop()
        blocks.append((total, count))
    places = [total / count for total, count in blocks for _ in range(count)]
    return [place + offset for place, offset in zip(places, offsets, strict=True)]


def _line(way: Sequence[_Item], at: Any, deep: float, *, is_down: bool) -> tuple[str, str]:
    """Return the paths of a line and its head: curves between two levels, straight through those that it passes."""
    half = _BETWEEN_LEVELS / 2
    parts = ["M{:.1f} {:.1f}".format(*at(way[0], deep))]
    for before, item in pairwise(way):
        points = (*at(before, deep + half), *at(item, -half), *at(item, 0))
        parts.append("C{:.1f} {:.1f} {:.1f} {:.1f} {:.1f} {:.1f}".format(*points))
        if item is not way[-1]:
            parts.append("L{:.1f} {:.1f}".format(*at(item, deep)))
    x, y = at(way[-1], 0)
    sides = ((x - 3.5, y - 6), (x + 3.5, y - 6)) if is_down else ((x - 6, y - 3.5), (x - 6, y + 3.5))
    head = f"M{sides[0][0]:.1f} {sides[0][1]:.1f}L{sides[1][0]:.1f} {sides[1][1]:.1f}L{x:.1f} {y:.1f}Z"
    return "".join(parts), head
