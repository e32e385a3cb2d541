"""Actions: what a step may do. An action is `<model>:<task_type>` for any model, or a name from the actions file.

The file is TOML with one table for each action; only `model` and `task_type` are required:

    [actions."brands.extract"]
    provider = "piapi"
    account = "production"                 # at that provider; by default as for any other task
    model = "gpt-4o"
    task_type = "chat"
    fixed_input = { stream = false }       # overrides the input of the step
    default_input = { temperature = 0.2 }  # used where the input of the step has no such name
    result = { brand_id = "brand.id" }     # names of the result, and their paths in the normalised output
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Struct, field
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from receiver.domain.graph import Fault, Issue, StepSpec, issue_of
from receiver.domain.references import InvalidReference, Path, look_up, parse_path
from receiver.domain.representations import result_url
from receiver.errors import BadRequest, SettingsError

LONGEST_NAME = 200
"""The longest name of an action, a model or a task type, in characters."""
_LONGEST_UNNAMED = 2 * LONGEST_NAME + 1
_RESERVED_NAMES = ("task_id", "job_id")
"""Names that Ringback sets in every result; the `result` of an action cannot define them."""
_MOST_SUGGESTIONS = 5
_FORM = "<model>:<task_type>, such as kling:video_generation"


class UnknownAction(BadRequest):
    """No action has this name; `message` suggests the most similar ones."""


class Action(Struct, frozen=True, kw_only=True):
    """What a step does. `result` maps names to paths in the output; when it is empty, the output is the result."""

    name: str
    provider: str
    model: str
    task_type: str
    account: str | None = None
    fixed_input: Mapping[str, Any] = field(default_factory=dict)
    default_input: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Path] = field(default_factory=dict)


class Actions(Struct, frozen=True):
    """The actions of the file, by name. `provider` is the provider of actions of the form `<model>:<task_type>`."""

    provider: str
    named: Mapping[str, Action] = field(default_factory=dict)

    def find(self, name: str) -> Action:
        """Return the action of this name. Raises `UnknownAction`."""
        if name in self.named:
            return self.named[name]
        action = _unnamed(self.provider, name) if len(name) <= _LONGEST_UNNAMED else None
        if action is not None:
            return action
        raise UnknownAction(self._unknown_message(name[:LONGEST_NAME]))

    def of(self, step: StepSpec) -> Action:
        """Return the action of a step, at the provider that the step names. Raises `UnknownAction`.

        The action's account is at the action's own provider: at another one it is not used.
        """
        action = self.find(step.action)
        if step.provider is None or step.provider == action.provider:
            return action
        return replace(action, provider=step.provider, account=None)

    def issues(self, steps: Sequence[StepSpec]) -> Iterator[Issue]:
        """Yield an issue for each step whose action does not exist."""
        for index, step in enumerate(steps):
            try:
                self.find(step.action)
            except UnknownAction as error:
                yield issue_of(step, Fault.UNKNOWN_ACTION, error.message, f"steps[{index}].action")

    def _unknown_message(self, name: str) -> str:
        similar = get_close_matches(name, self.named, n=_MOST_SUGGESTIONS) or sorted(self.named)[:_MOST_SUGGESTIONS]
        suggestions = f"{', '.join(similar)}, or " if similar else ""
        return f"no action is named {name!r}; use {suggestions}{_FORM}"


def parse_actions(data: Mapping[str, Any], *, providers: Collection[str], default_provider: str) -> Actions:
    """Return the actions of a parsed TOML file.

    `providers` are the allowed values of a table's `provider`, which defaults to `default_provider`.
    Raises `SettingsError` that names every fault, one per line.
    """
    faults = [f"{name}: unknown table; put actions under [actions]" for name in data if name != "actions"]
    tables = data.get("actions", {})
    if not isinstance(tables, dict):
        faults.append("actions: must be a table of tables")
        tables = {}
    found: dict[str, _Table] = {}
    for name, table in tables.items():
        name_faults = _name_faults(name, table)
        faults += name_faults
        try:
            if not name_faults:
                found[name] = _Table.model_validate(table, context=providers)
        except ValidationError as error:
            faults += _table_faults(name, error)
    if faults:
        raise SettingsError("\n".join(faults))
    return Actions(default_provider, {name: table.action(name, default_provider) for name, table in found.items()})


def build_input(action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of a task: the default input, overridden by the step's, overridden by the fixed input.

    Only top-level names are merged: a nested object replaces another as a whole.
    """
    return {**action.default_input, **given, **action.fixed_input}


def read_result(action: Action, output: Mapping[str, Any] | None, *, task_id: str) -> dict[str, Any]:
    """Return the result of a step: its task's normalised output, and `task_id`, `job_id` and `result_url`.

    An action's paths may refer to these three too. A path without a value leaves its name out of the result, and the
    step does not fail for it: its task has been paid for, and only a step that uses the name needs the value.
    """
    output = dict(output or {})
    ids = {"task_id": task_id, "job_id": task_id}
    whole = {**output, "result_url": result_url(output) or output.get("result_url"), **ids}
    if not action.result:
        return whole
    read = {name: value for name, path in action.result.items() if (value := look_up(path, whole)) is not None}
    return {"result_url": whole["result_url"], **read, **ids}


@lru_cache(maxsize=1024)  # a run asks for that of each step several times, and most runs for the same ones
def _unnamed(provider: str, name: str) -> Action | None:
    """Return the action of the form `<model>:<task_type>`, None for another form."""
    # A model may have colons in its name, a task type may not.
    model, colon, task_type = name.rpartition(":")
    if colon and _is_valid_name(model) and _is_valid_name(task_type):
        return Action(name=name, provider=provider, model=model, task_type=task_type)
    return None


def _is_valid_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text == text.strip() and text.isprintable()


def _name(text: str) -> str:
    if not _is_valid_name(text):
        raise ValueError(f"must have 1 to {LONGEST_NAME} characters, without surrounding white space")
    return text


def _path(text: str) -> str:
    try:
        parse_path(text)
    except InvalidReference as error:
        raise ValueError(error.message) from None
    return text


def _result_name(name: str) -> str:
    if name in _RESERVED_NAMES:
        raise ValueError("this name is reserved: Ringback sets it in every result")
    return _name(name)


def _provider(name: str, info: ValidationInfo) -> str:
    providers: Collection[str] = info.context or ()
    if name not in providers:
        raise ValueError(f"no provider is named {name[:LONGEST_NAME]!r}; use {' or '.join(sorted(providers))}")
    return name


ActionField = Annotated[str, AfterValidator(_name)]
ResultName = Annotated[str, AfterValidator(_result_name)]


class _Table(BaseModel):
    """The table of an action in the file. The context of its validation is the collection of provider names."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    provider: Annotated[str, AfterValidator(_provider)] | None = None
    model: ActionField
    task_type: ActionField
    account: ActionField | None = None
    fixed_input: dict[str, Any] = {}
    default_input: dict[str, Any] = {}
    result: dict[ResultName, Annotated[str, AfterValidator(_path)]] = {}

    def action(self, name: str, default_provider: str) -> Action:
        return Action(
            name=name,
            provider=self.provider or default_provider,
            model=self.model,
            task_type=self.task_type,
            account=self.account,
            fixed_input=self.fixed_input,
            default_input=self.default_input,
            result={each: parse_path(path) for each, path in self.result.items()},
        )


def _name_faults(name: str, table: Any) -> list[str]:
    where = f"actions.{name[:LONGEST_NAME]}"
    if not isinstance(table, dict):
        return [f"{where}: must be a table"]
    if table and not table.keys() & _Table.model_fields and all(isinstance(each, dict) for each in table.values()):
        return [f'{where}: put a name with dots in quotes, such as [actions."{name}.{next(iter(table))}"]']
    if ":" in name:
        return [f"{where}: a name cannot have a colon; the action <model>:<task_type> needs no table"]
    if not _is_valid_name(name):
        return [f"{where}: a name must have 1 to {LONGEST_NAME} characters, without surrounding white space"]
    return []


def _table_faults(name: str, error: ValidationError) -> list[str]:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = [f'actions."{name}".{".".join(str(part) for part in fault["loc"])}' for fault in faults]
    return [f"{at}: {fault['msg'].removeprefix('Value error, ')}" for at, fault in zip(where, faults, strict=True)]
