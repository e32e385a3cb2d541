"""The metrics in Prometheus' text format, also those of several workers together.

Workers share the values of their metrics in files of one folder. Every module that makes a metric imports this one
first: where a value is kept is decided here.
"""

import os
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_WORKER = "PROMETHEUS_MULTIPROC_WORKER"

WORKER = os.environ.get(_WORKER, "0")
"""The number of this worker, as text; that of a process that serves alone is 0. No other running worker has it."""

if _WORKER in os.environ:
    # Files are named by the worker's number and not by its process id: the process that replaces a dead worker
    # continues its files, so that totals never fall and there are never more files than workers.
    values.ValueClass = values.MultiProcessValue(lambda: int(WORKER))  # type: ignore[no-untyped-call]


def shared_counters(folder: Path, worker: int) -> dict[str, str]:
    """Return the environment variables for a worker process that shares its counters with others in `folder`.

    `worker` is a number that no other running worker has.
    """
    return {_FOLDER: str(folder), _WORKER: str(worker)}


def shared_folder() -> Path | None:
    """Return the folder in which this worker shares its metrics; None for a process that serves alone."""
    return Path(os.environ[_FOLDER]) if _FOLDER in os.environ else None


def forget_worker(folder: Path, worker: int) -> None:
    """Remove the gauges of a worker that ended, such as its number of open streams; its counters stay."""
    mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def counters(*names: str) -> dict[str, Metric]:
    """Return these metrics by their names, summed over all workers where there are several."""
    registry = REGISTRY
    if _FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return {metric.name: metric for metric in registry.collect() if metric.name in names}


def exposition(folder: Path | None = None) -> bytes:
    """Return the metrics in Prometheus' text format: summed over all workers, where there are several.

    They share them in `folder`, which a worker knows by itself.
    """
    if folder is None and _FOLDER not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    path = None if folder is None else str(folder)
    MultiProcessCollector(registry, path=path)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
