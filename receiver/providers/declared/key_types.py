"""What the values of a provider's file may be: expressions, texts with places, names of headers and of credentials."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from receiver.providers.declared.expressions import Expression
from receiver.providers.declared.templates import Template

NAME = re.compile(r"[a-z][a-z0-9]{1,31}")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")
_CREDENTIAL = re.compile(r"(?!base_url\Z)(?!.*_file\Z)[a-z][a-z0-9_]{0,63}")
"""The settings of the others would mean something else: the address, and the file that has a credential."""
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*(?::[0-9]{1,5})?")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]+/(?:\*|[a-z0-9.+-]+)")
_BASE_URL = re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?")
_WORD = re.compile(r"\S(?:.*\S)?")
_TEN_YEARS = 10 * 366 * 86_400
"""In seconds. Without a bound a file could name a time that no date has."""
_NO_HEADER = "no header may have such characters: use those of ASCII that are printed"


def _expression(value: Any) -> Expression:
    if not isinstance(value, str):
        raise ValueError("must be a JMESPath expression, as a text")  # noqa: TRY004 - pydantic takes it as a fault
    made = Expression(value)
    made.compile()
    return made


def _template(value: Any) -> Template:
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004 - pydantic takes it as a fault
    return Template(value)


def _header_template(value: Any) -> Template:
    made = _template(value)
    if _HEADER_TEXT.fullmatch(made.text) is None:
        raise ValueError(_NO_HEADER)
    return made


def _matching(form: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if form.fullmatch(value) is None:
            raise ValueError(what)
        return value

    return AfterValidator(check)


def _base_url(value: str) -> str:
    fault = "must be an http or https URL"
    try:
        parts = urlsplit(value)
        is_good = _BASE_URL.fullmatch(value) is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(fault) from None
    if not is_good:
        raise ValueError(fault)
    return value


def _pattern(value: Any) -> re.Pattern[str]:
    try:
        return re.compile(str(value), re.ASCII)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


Expr = Annotated[Expression, BeforeValidator(_expression)]
Text = Annotated[Template, BeforeValidator(_template)]
HeaderName = Annotated[str, _matching(HEADER_NAME, "must be the name of a header")]
HeaderText = Annotated[str, _matching(_HEADER_TEXT, _NO_HEADER)]
HeaderTemplate = Annotated[Template, BeforeValidator(_header_template)]
CredentialName = Annotated[
    str,
    _matching(
        _CREDENTIAL, "must be lower-case letters, digits and _, such as api_key; not base_url, not with _file last"
    ),
]
HostName = Annotated[str, _matching(_HOST, "must be a host in lower case, such as files.acme.example")]
MediaType = Annotated[str, _matching(_MEDIA_TYPE, "must be a media type in lower case, such as image/png or image/*")]
Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
DeclaredName = Annotated[str, _matching(NAME, "must be 2 to 32 lower-case letters and digits, a letter first")]
PositiveSeconds = Annotated[float, Field(gt=0, le=_TEN_YEARS)]
BaseURL = Annotated[str, AfterValidator(_base_url)]
StatusWord = Annotated[str, _matching(_WORD, "a word must have no blanks around it, and not be empty")]
