"""What the TOML file of a provider may have. `deploy/guides/add-a-provider.md` explains each key to who writes one."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from models import TaskStatus
from receiver.providers.base import CallbackScope, CancelScope
from receiver.providers.declared.expressions import Expression
from receiver.providers.declared.templates import Template

NAME = re.compile(r"[a-z][a-z0-9]{1,31}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CREDENTIAL = re.compile(r"[a-z][a-z0-9_]{0,63}")
OF_TASK = ("id", "model", "task_type")
OF_SUBMIT = ("model", "task_type")
OF_LIST = ("model", "since", "since_seconds", "until", "until_seconds")
OF_PROOF = ("timestamp", "body", "body_sha256")


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


def _matching(form: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if form.fullmatch(value) is None:
            raise ValueError(what)
        return value

    return AfterValidator(check)


def _pattern(value: Any) -> re.Pattern[str]:
    try:
        return re.compile(str(value), re.ASCII)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


Expr = Annotated[Expression, BeforeValidator(_expression)]
Text = Annotated[Template, BeforeValidator(_template)]
HeaderName = Annotated[str, _matching(_HEADER_NAME, "must be the name of a header")]
CredentialName = Annotated[str, _matching(_CREDENTIAL, "must be lower-case letters, digits and _, such as api_key")]
PositiveSeconds = Annotated[float, Field(gt=0)]
BaseURL = Annotated[str, _matching(re.compile(r"https?://[^\s/?#@]+(?:/[^\s?#]*)?"), "must be an http or https URL")]
EVERYTHING = Expression("@")


class FileTable(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class AuthTable(FileTable):
    """How a call is authenticated."""

    by: Literal["bearer", "header", "jwt"] = "bearer"
    name: HeaderName = "authorization"
    value: Text = Template("Bearer {api_key}")
    issuer: CredentialName = "access_key"
    key: CredentialName | None = None
    seconds: PositiveSeconds = 1800


class RequestPlace(FileTable):
    """Where a value is put into a request."""

    where: Annotated[Literal["body", "query", "header"], Field(alias="in")] = "body"
    name: Annotated[str, Field(min_length=1)]


class TextForm(FileTable):
    """What a text must be, as a regular expression, and an example of it for the message."""

    form: Annotated[re.Pattern[str], BeforeValidator(_pattern)]
    such_as: str


class CallTable(FileTable):
    """A call to the provider."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: Text
    query: dict[str, Text] = {}
    headers: dict[HeaderName, Text] = {}
    body: Expr | None = None


class ReadingTable(FileTable):
    """Where a task is in a body, and what differs there from `[task]`."""

    task: Expr = EVERYTHING
    id: Expr | None = None
    status: Expr | None = None


class SubmitTable(CallTable, ReadingTable):
    """The create call."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    body: Expr | None = Expression("input")
    callback: RequestPlace | None = None
    reference: RequestPlace | None = None
    model: TextForm | None = None
    task_type: TextForm | None = None


class LookTable(CallTable, ReadingTable):
    """The call that asks for a task, also by our own reference."""


class ResultTable(CallTable):
    """A second call, for the result of a completed task."""

    values: dict[str, Expr] = {}
    output: Expr = EVERYTHING
    error: Expr | None = None


class CancelTable(CallTable):
    """The call that cancels a task."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    done: Expr | None = None


class AccountTable(CallTable):
    """A call that costs nothing and shows whether the key is accepted."""

    good: Expr | None = None


class ListTable(CallTable, ReadingTable):
    """The provider's list of its tasks, newest first."""

    items: Expr
    next: Expr
    next_query: str | None = None


class TaskTable(FileTable):
    """Where what of a task is."""

    id: Expr = Expression("id")
    status: Expr = Expression("status")
    output: Expr = Expression("output")
    error: Expr = Expression("error")
    code: Expr | None = None
    progress: Expr | None = None
    logs: Expr | None = None
    meta: Expr | None = None
    model: Expr | None = None
    input: Expr | None = None
    webhook_url: Expr | None = None
    created_at: Expr | None = None
    started_at: Expr | None = None
    ended_at: Expr | None = None


class WordsTable(FileTable):
    """The provider's words for each state."""

    staged: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    processing: tuple[str, ...] = ()
    completed: Annotated[tuple[str, ...], Field(min_length=1)]
    failed: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _each_word_once(self) -> Self:
        words = [word for name in type(self).model_fields for word in getattr(self, name)]
        twice = sorted({word for word in words if sum(word.lower() == other.lower() for other in words) > 1})
        if twice:
            raise ValueError(f"a word can mean one state only: {', '.join(twice)}")
        return self

    def by_word(self) -> dict[str, TaskStatus]:
        """Return the status of each word, in lower case."""
        return {word.lower(): TaskStatus(name) for name in type(self).model_fields for word in getattr(self, name)}


class AnswersTable(FileTable):
    """What an answer means where its HTTP status does not say it: expressions over `status`, `body` and `text`."""

    unauthorized: Expr | None = None
    no_money: Expr | None = None
    later: Expr | None = None
    missing: Expr | None = None
    refused: Expr | None = None
    message: Expr | None = None


class ProofTable(FileTable):
    """What a webhook brings as proof besides the token in its path."""

    by: Literal["none", "standard", "hmac", "ed25519"] = "none"
    secret: CredentialName | None = None
    optional: bool = False
    header: HeaderName | None = None
    signature_field: str | None = None
    timestamp_header: HeaderName | None = None
    timestamp_field: str | None = None
    signed: Text = Template("{timestamp}.{body}")
    encoding: Literal["hex", "base64"] = "hex"
    tolerance_seconds: PositiveSeconds = 300
    jwks: str | None = None


class WebhookTable(ReadingTable):
    """How a webhook is read."""

    thin: bool | Expr = False
    challenge: Expr | None = None
    proof: ProofTable = ProofTable()


class CapabilityTable(FileTable):
    """What the provider can do, as far as the other tables do not say it."""

    callback: CallbackScope = CallbackScope.NONE
    cancels: CancelScope = CancelScope.NONE
    erases_ended: bool = False
    output_seconds: PositiveSeconds | None = None
    record_seconds: PositiveSeconds | None = None
    least_poll_seconds: PositiveSeconds | None = None
    outputs_need_key: bool = False


class ProviderFile(FileTable):
    """A whole file."""

    name: Annotated[str, _matching(NAME, "must be 2 to 32 lower-case letters and digits, a letter first")]
    title: Annotated[str, Field(min_length=1, max_length=100)]
    base_url: BaseURL
    hosts: frozenset[str] = frozenset()
    credentials: Annotated[tuple[CredentialName, ...], Field(min_length=1)] = ("api_key",)
    optional_credentials: tuple[CredentialName, ...] = ()
    headers: dict[HeaderName, str] = {}
    auth: AuthTable = AuthTable()
    capabilities: CapabilityTable = CapabilityTable()
    submit: SubmitTable
    look: LookTable
    result: ResultTable | None = None
    cancel: CancelTable | None = None
    list: ListTable | None = None
    find: LookTable | None = None
    account: AccountTable
    task: TaskTable = TaskTable()
    words: WordsTable
    answers: AnswersTable = AnswersTable()
    webhook: WebhookTable | None = None
