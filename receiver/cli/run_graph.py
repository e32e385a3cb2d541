"""A run's steps as a graph: for the terminal, for Graphviz (dot), for Mermaid, and as JSON."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from receiver.domain.run_levels import StepView, edges, levels
from receiver.printable import printable

_COLOURS = {
    "completed": "#b7e4c7",
    "failed": "#f5b7b1",
    "skipped": "#e5e7e9",
    "processing": "#aed6f1",
    "queued": "#d6eaf8",
}
"""By the state of a step; the others are white."""


def as_rows(steps: Sequence[StepView]) -> list[tuple[str, str, str, str, str]]:
    """Return the rows of a table: level, step, action, state, and after which steps."""
    return [
        (str(number), step["id"], step["action"], step["status"], ", ".join(step.get("depends_on") or ()) or "-")
        for number, level in enumerate(levels(steps), 1)
        for step in level
    ]


def as_dot(run: Mapping[str, Any]) -> str:
    """Return the graph in the language of Graphviz."""
    lines = [f"digraph {_quoted(run['id'])} {{", "  rankdir=TB;", '  node [shape=box, style="rounded,filled"];']
    for step in run["steps"]:
        label = _quoted(f"{step['id']}\n{step['action']}\n{step['status']}")
        colour = _COLOURS.get(step["status"], "#ffffff")
        lines.append(f'  {_quoted(step["id"])} [label={label}, fillcolor="{colour}"];')
    lines += [f"  {_quoted(before)} -> {_quoted(after)};" for before, after in edges(run["steps"])]
    return "\n".join([*lines, "}"])


def as_mermaid(run: Mapping[str, Any]) -> str:
    """Return the graph in the language of Mermaid. Its nodes have numbers, for not every id of a step can be a name."""
    names = {step["id"]: f"s{number}" for number, step in enumerate(run["steps"])}
    lines = ["flowchart TD"]
    for step in run["steps"]:
        label = "<br/>".join(_entities(step[field]) for field in ("id", "action", "status"))
        lines.append(f'  {names[step["id"]]}["{label}"]:::{_word(step["status"])}')
    lines += [f"  {names[before]} --> {names[after]}" for before, after in edges(run["steps"])]
    lines += [f"  classDef {state} fill:{colour}" for state, colour in _COLOURS.items()]
    return "\n".join(lines)


def as_document(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the graph as a JSON document: the ids by level, the steps, and the edges from a step to the next."""
    return {
        "run_id": run["id"],
        "status": run["status"],
        "levels": [[step["id"] for step in level] for level in levels(run["steps"])],
        "steps": [
            {name: step.get(name) for name in ("id", "action", "status", "depends_on", "job_id")}
            for step in run["steps"]
        ],
        "edges": [list(edge) for edge in edges(run["steps"])],
    }


def _quoted(text: str) -> str:
    """Return a text as Graphviz reads it in quotes: its own line breaks only, and nothing that a terminal obeys."""
    parts = [printable(part).replace("\\", "\\\\").replace('"', '\\"') for part in text.split("\n")]
    return '"' + "\\n".join(parts) + '"'


def _entities(text: str) -> str:
    """Return a text as Mermaid shows it: every character that could mean something there by its number."""
    return re.sub(r"[^\w .,:/-]", lambda found: f"#{ord(found[0])};", printable(text))


def _word(state: str) -> str:
    return re.sub(r"\W", "", state) or "unknown"
