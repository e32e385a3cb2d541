"""Classes of fields that hold secrets, and do not show them."""

from typing import Any, ClassVar


class HidesFields:
    """Stands before `Struct` among the bases of a class, which shows `…` for those of `hidden_fields` with a value.

    A log record, an error or a traceback may show any object, also where nothing was meant to show it.
    """

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]
    hidden_fields: ClassVar[frozenset[str]]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields as `rich` shows them."""
        return [(name, self._shown(name)) for name in self.__struct_fields__]

    def _shown(self, name: str) -> Any:
        value = getattr(self, name)
        return "…" if value and name in self.hidden_fields else value
