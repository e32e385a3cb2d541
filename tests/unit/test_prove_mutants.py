"""The mutants of `make prove` fit the code as it is: each changes one text, and what comes out is a program."""

import ast

import pytest

from tests.prove.checker import PROMISES
from tests.prove.mutants.catalogue import MUTANTS
from tests.prove.mutants.mutating import ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_text_into_a_program(mutant: Mutant) -> None:
    changed = mutant.text()
    assert changed != (ROOT / mutant.file).read_text(encoding="utf-8")
    ast.parse(changed)


def test_every_mutant_names_promises_that_there_are() -> None:
    names = {promise.name for promise in PROMISES}
    assert [mutant.name for mutant in MUTANTS if not set(mutant.promises) <= names] == []
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
