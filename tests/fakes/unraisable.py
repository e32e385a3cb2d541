"""A pytest plugin that names each exception that Python could not raise.

An exception in `__del__`, such as the warning that a resource was not closed, goes to `sys.unraisablehook`. pytest
collects these and raises them in the next phase of whichever test runs, several at once as a group. Its summary then
shows neither what the parts are nor what each is about.
"""

import os
import sys
import tracemalloc
from collections.abc import Generator

import pytest

_GROUPS = {
    "multiple unraisable exception warnings": "unraisable exception",
    "multiple thread exception warnings": "thread exception",
}
_SINGLE = (pytest.PytestUnraisableExceptionWarning, pytest.PytestUnhandledThreadExceptionWarning)
_FRAMES = 12
_UNTRACED = "To see where it was allocated, run these tests again with --trace-allocations (slow)."


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tracing is off by default, because it makes tests several times slower."""
    parser.addoption("--trace-allocations", action="store_true", help="show where an unclosed resource was allocated")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Trace from here and not from the start: imports take minutes with PYTHONTRACEMALLOC."""
    if session.config.getoption("trace_allocations"):
        tracemalloc.start(_FRAMES)
        session.config.add_cleanup(tracemalloc.stop)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Add notes to the exceptions that pytest's own hook, installed before this one, collects."""
    collect = sys.unraisablehook

    def note_and_collect(unraisable: "sys.UnraisableHookArgs", /) -> None:
        _add_notes(unraisable)
        collect(unraisable)

    def restore() -> None:
        sys.unraisablehook = collect

    sys.unraisablehook = note_and_collect
    config.add_cleanup(restore)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Name the exceptions in the summary line, which a terminal may cut, and each of a group in its own section."""
    report = yield
    error = call.excinfo.value if call.excinfo is not None else None
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(error, _SINGLE) and crash is not None:
        crash.message = _line(error)
    elif isinstance(error, BaseExceptionGroup) and error.message in _GROUPS:
        kind, count = _GROUPS[error.message], len(error.exceptions)
        for number, part in enumerate(error.exceptions, 1):
            report.sections.append((f"{kind} {number} of {count}", "\n".join([_line(part), *_notes(part)])))
        if crash is not None:
            crash.message = f"{count} {kind}s: " + "; ".join(map(_line, error.exceptions))
    return report


def _add_notes(unraisable: "sys.UnraisableHookArgs") -> None:
    """Note which test was running, which need not be the one at fault, and where the object was allocated."""
    error = unraisable.exc_value
    if error is None:
        return
    error.add_note(f"Found during: {os.environ.get('PYTEST_CURRENT_TEST', 'no test')}")
    if not tracemalloc.is_tracing():
        error.add_note(_UNTRACED)
    elif allocation := _allocation(_source(unraisable)):
        error.add_note("\n".join(["Allocated at (most recent call last):", *allocation.format()]))


def _source(unraisable: "sys.UnraisableHookArgs") -> object:
    """Return the object that was finalized: for a `__del__` written in Python, its `self`."""
    if getattr(unraisable.object, "__name__", None) == "__del__" and unraisable.exc_traceback is not None:
        return unraisable.exc_traceback.tb_frame.f_locals.get("self")
    return unraisable.object


def _allocation(source: object) -> tracemalloc.Traceback | None:
    """Return where an object was allocated, or else the first of its attributes that has a trace.

    Python 3.11 does not find the trace of most instances of classes written in Python.
    """
    candidates = (source, *getattr(source, "__dict__", {}).values())
    return next(filter(None, map(tracemalloc.get_object_traceback, candidates)), None)


def _notes(error: BaseException) -> list[str]:
    return getattr(error.__cause__, "__notes__", [])


def _line(error: BaseException) -> str:
    """Return what happened, and to what, in one line."""
    place = str(error).partition("\n")[0]
    cause = error.__cause__
    return place if cause is None else f"{type(cause).__name__}: {cause} ({place})".replace("\n", " ")
