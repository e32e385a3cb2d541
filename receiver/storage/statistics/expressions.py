"""SQL expressions by which the databases count: the minute of a time, a duration, its bucket, and rows as one document.

A query of many small rows takes longer to be passed on, row by row and value by value, than to be made. As one document
they arrive in a tenth of the time.
"""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, case, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from models.columns import Document, Moment
from receiver.domain.histograms import DOUBLINGS, LONGEST_MS, SUB_BUCKETS


class minute_of(FunctionElement[Any]):  # noqa: N801 - used as a function, as SQLAlchemy's own constructs are
    """When the minute of a time began, in UTC."""

    type = Moment()
    name = "minute_of"
    inherit_cache = True


class milliseconds_between(FunctionElement[Any]):  # noqa: N801
    """How many milliseconds the second time is after the first."""

    type = BigInteger()
    name = "milliseconds_between"
    inherit_cache = True


class rows_by_time(FunctionElement[Any]):  # noqa: N801
    """All rows as a list of lists: the first value, a time, in seconds since 1970, and the others. It may be null."""

    type = Document
    name = "rows_by_time"
    inherit_cache = True


class documents_of(FunctionElement[Any]):  # noqa: N801
    """The documents of all rows of a group as a list. It may be null."""

    type = Document
    name = "documents_of"
    inherit_cache = True


@compiles(minute_of, "sqlite")
def _minute_on_sqlite(element: minute_of, compiler: Any, **options: Any) -> str:
    return f"(substr({compiler.process(element.clauses, **options)}, 1, 17) || '00.000000')"


@compiles(minute_of, "postgresql")
def _minute_on_postgresql(element: minute_of, compiler: Any, **options: Any) -> str:
    return f"date_trunc('minute', {compiler.process(element.clauses, **options)})"


@compiles(milliseconds_between, "sqlite")
def _milliseconds_on_sqlite(element: milliseconds_between, compiler: Any, **options: Any) -> str:
    first, second = (compiler.process(each, **options) for each in element.clauses)
    return f"CAST(round((julianday({second}) - julianday({first})) * 86400000.0) AS INTEGER)"


@compiles(milliseconds_between, "postgresql")
def _milliseconds_on_postgresql(element: milliseconds_between, compiler: Any, **options: Any) -> str:
    first, second = (compiler.process(each, **options) for each in element.clauses)
    return f"CAST(extract(epoch FROM ({second} - {first})) * 1000 AS BIGINT)"


@compiles(rows_by_time, "sqlite")
def _rows_on_sqlite(element: rows_by_time, compiler: Any, **options: Any) -> str:
    at, *numbers = (compiler.process(each, **options) for each in element.clauses)
    return f"json_group_array(json_array(CAST(strftime('%s', {at}) AS INTEGER), {', '.join(numbers)}))"


@compiles(rows_by_time, "postgresql")
def _rows_on_postgresql(element: rows_by_time, compiler: Any, **options: Any) -> str:
    at, *numbers = (compiler.process(each, **options) for each in element.clauses)
    return f"json_agg(json_build_array(CAST(extract(epoch FROM {at}) AS BIGINT), {', '.join(numbers)}))"


@compiles(documents_of, "sqlite")
def _documents_on_sqlite(element: documents_of, compiler: Any, **options: Any) -> str:
    return f"('[' || group_concat({compiler.process(element.clauses, **options)}) || ']')"  # text as it is stored


@compiles(documents_of, "postgresql")
def _documents_on_postgresql(element: documents_of, compiler: Any, **options: Any) -> str:
    return f"json_agg({compiler.process(element.clauses, **options)})"


def bucket(milliseconds: ColumnElement[int]) -> ColumnElement[int]:
    """Return the number of a duration's bucket, as `receiver.domain.histograms.bucket_of` does; null for null.

    It compares as a search in a sorted list does, five times, for the databases have no logarithm in common.
    """
    inside = case((milliseconds <= _number(LONGEST_MS), milliseconds), else_=_number(LONGEST_MS))
    return case(
        (milliseconds < _number(0), _number(0)),
        (milliseconds.is_not(None), _bucket(milliseconds, inside, 0, DOUBLINGS)),
    )


def _bucket(milliseconds: ColumnElement[int], inside: ColumnElement[int], least: int, most: int) -> ColumnElement[int]:
    if least == most:
        shown = inside if least == DOUBLINGS else milliseconds
        return _number(least * SUB_BUCKETS) + shown.bitwise_rshift(_shift(least))
    middle = (least + most) // 2
    is_below = milliseconds < _number(2 * SUB_BUCKETS << middle)
    lower, upper = _bucket(milliseconds, inside, least, middle), _bucket(milliseconds, inside, middle + 1, most)
    return case((is_below, lower), else_=upper)


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), BigInteger())


def _shift(value: int) -> ColumnElement[int]:
    return literal_column(str(value))
