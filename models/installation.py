"""Facts of the whole installation, which every process and version reads."""

from typing import ClassVar

from sqlalchemy import Text
from sqlmodel import Field, SQLModel


class InstallationFact(SQLModel, table=True):
    """One fact, such as when the last backup was made. The names are in `receiver.storage.installation`.

    A row is inserted when the fact is first known, replaced by each newer one, and never deleted. Every version must be
    able to read this table: its columns do not change.
    """

    __tablename__: ClassVar[str] = "installation_fact"

    name: str = Field(primary_key=True)
    value: str = Field(sa_type=Text)
    """A JSON document."""
