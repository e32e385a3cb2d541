"""Schemas of what operators send about organizations."""

from typing import Annotated, Any

from msgspec.structs import asdict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StringConstraints, WithJsonSchema

from receiver.api.schemas import ShortName
from receiver.domain.ids import is_id
from receiver.organization_limits import LIMIT_NAMES, UNLIMITED, OrganizationLimits


def _check_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("may have printable characters only")
    if is_id(name.lower()):
        raise ValueError("may not have the form of an id")
    return name


def _check_limits(given: dict[str, Any]) -> dict[str, Any]:
    """Return limits as they are stored: numbers, "unlimited", or None for the default again."""
    checked = asdict(OrganizationLimits().with_values(given))
    return {name: value if value in (None, UNLIMITED) else checked[name] for name, value in given.items()}


OrganizationName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_check_name)
]
LimitValues = Annotated[
    dict[str, Any],
    Field(max_length=50),
    AfterValidator(_check_limits),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                name: {"anyOf": [{"type": "number", "minimum": 0}, {"const": UNLIMITED}, {"type": "null"}]}
                for name in LIMIT_NAMES
            },
            "additionalProperties": False,
            "description": "Numbers, `unlimited`, or null for the default again.",
        }
    ),
]


class CreateOrganization(BaseModel):
    """`POST /api/v1/organizations`: a new organization."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    name: OrganizationName
    limits: LimitValues = {}
    owns_provider_account: StrictBool = False
    key_name: ShortName = "first admin key"


class ChangeOrganization(BaseModel):
    """`PATCH /api/v1/organizations/{id}`: of the limits, only those that are given are changed; null resets one."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    limits: LimitValues = {}
    owns_provider_account: StrictBool | None = None
