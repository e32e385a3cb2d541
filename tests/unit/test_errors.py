"""The tree of errors that opens `receiver.errors` is the tree of the classes."""

import importlib
import re
from pkgutil import walk_packages

import receiver.domain
from receiver import errors
from receiver.errors import RingbackError

_LINE = re.compile(
    r"^ {4}(?P<indent>[│├└─ ]*)(?P<name>\w+)(?: \([\w.]+\))? +(?P<status>\d{3}|-|\*) +(?P<code>[^;\n]+)", re.MULTILINE
)
_WITHOUT_STATUS = {"-", "*"}


def drawn() -> dict[str, re.Match[str]]:
    """Return the lines of the tree by the names of their classes."""
    return {line["name"]: line for line in _LINE.finditer(errors.__doc__ or "")}


def defined() -> dict[str, type[RingbackError]]:
    """Return every error class of the receiver by its name."""
    for module in walk_packages(receiver.domain.__path__, "receiver.domain."):
        importlib.import_module(module.name)
    importlib.import_module("receiver.asgi")
    found, waiting = {}, [RingbackError]
    while waiting:
        each = waiting.pop()
        found[each.__name__] = each
        waiting += [child for child in each.__subclasses__() if child.__module__.startswith(receiver.__name__)]
    return found


def test_the_tree_names_every_error_with_its_status_and_code() -> None:
    tree, classes = drawn(), defined()
    assert tree.keys() == classes.keys()
    for name, line in tree.items():
        if line["status"] not in _WITHOUT_STATUS:
            assert int(line["status"]) == classes[name].status, name
            if classes[name].__module__ != "receiver.domain.graph":  # its code depends on what is wrong
                assert line["code"].strip() == classes[name].code, name


def test_an_error_is_drawn_below_its_base_class() -> None:
    classes, parents = defined(), [""]
    for name, line in drawn().items():
        depth = len(line["indent"]) // 4
        parents[depth:] = [name]
        if depth:
            assert classes[name].__base__ is classes[parents[depth - 1]], name
