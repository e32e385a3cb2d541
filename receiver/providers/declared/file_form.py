"""What the TOML file of a provider may have. `deploy/guides/add-a-provider.md` explains each key to who writes one."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models import TaskStatus
from receiver.providers.capabilities import CallbackScope, CancelScope
from receiver.providers.declared.expressions import Expression
from receiver.providers.declared.key_types import (
    HEADER_NAME,
    BaseURL,
    CredentialName,
    DeclaredName,
    Expr,
    HeaderName,
    HeaderTemplate,
    HeaderText,
    HostName,
    MediaType,
    Pattern,
    PositiveSeconds,
    StatusWord,
    Text,
)
from receiver.providers.declared.templates import Template

OF_TASK = ("id", "model", "task_type")
OF_SUBMIT = ("model", "task_type")
OF_LIST = ("model", "since", "since_seconds", "until", "until_seconds")
OF_PROOF = ("timestamp", "body", "body_sha256")
EVERYTHING = Expression("@")


class FileTable(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class AuthTable(FileTable):
    """How a call is authenticated."""

    by: Literal["bearer", "header", "jwt"] = "bearer"
    name: HeaderName = "authorization"
    value: HeaderTemplate = Template("Bearer {api_key}")
    issuer: CredentialName = "access_key"
    key: CredentialName | None = None
    seconds: PositiveSeconds = 1800


class RequestPlace(FileTable):
    """Where a value is put into a request."""

    where: Annotated[Literal["body", "query", "header"], Field(alias="in")] = "body"
    name: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _name_fits(self) -> Self:
        if self.where == "header" and HEADER_NAME.fullmatch(self.name) is None:
            raise ValueError("name must be the name of a header")
        if self.where == "body" and not all(self.name.split(".")):
            raise ValueError("name must be a field, or fields with a dot between two")
        return self


class TextForm(FileTable):
    """What a text must be, as a regular expression, and an example of it for the message."""

    form: Pattern
    such_as: str

    @model_validator(mode="after")
    def _example_fits(self) -> Self:
        if self.form.fullmatch(self.such_as) is None:
            raise ValueError(f"such_as must have the form: {self.such_as} has not")
        return self


class CallTable(FileTable):
    """A call to the provider."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: Text
    query: dict[str, Text] = {}
    headers: dict[HeaderName, HeaderTemplate] = {}
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
    sends: Literal["json", "multipart"] = "json"
    callback: RequestPlace | None = None
    reference: RequestPlace | None = None
    model: TextForm | None = None
    task_type: TextForm | None = None


class FindTable(CallTable, ReadingTable):
    """The call that asks for a task by our own reference."""


class LookTable(FindTable):
    """The call that asks for a task. Of a success of one of `file_types` the content is the output, and not read."""

    file_types: tuple[MediaType, ...] = ()


class DownloadTable(FileTable):
    """Where the files of a completed task are downloaded with the key. Ringback does not call it."""

    path: Text
    values: dict[str, Expr] = {}
    content_type: Expr | None = None


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

    staged: tuple[StatusWord, ...] = ()
    pending: tuple[StatusWord, ...] = ()
    processing: tuple[StatusWord, ...] = ()
    completed: Annotated[tuple[StatusWord, ...], Field(min_length=1)]
    failed: tuple[StatusWord, ...] = ()
    cancelled: tuple[StatusWord, ...] = ()

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

    name: DeclaredName
    title: Annotated[str, Field(min_length=1, max_length=100)]
    base_url: BaseURL
    hosts: frozenset[HostName] = frozenset()
    credentials: Annotated[tuple[CredentialName, ...], Field(min_length=1)] = ("api_key",)
    optional_credentials: tuple[CredentialName, ...] = ()
    headers: dict[HeaderName, HeaderText] = {}
    auth: AuthTable = AuthTable()
    capabilities: CapabilityTable = CapabilityTable()
    submit: SubmitTable
    look: LookTable
    result: ResultTable | None = None
    cancel: CancelTable | None = None
    list: ListTable | None = None
    find: FindTable | None = None
    download: DownloadTable | None = None
    account: AccountTable
    task: TaskTable = TaskTable()
    words: WordsTable
    answers: AnswersTable = AnswersTable()
    webhook: WebhookTable | None = None
