"""Actions: what a step may do. `<model>:<task_type>` for any model, or a name from the actions file. Pure.

The file is TOML, a table an action; only `model` and `task_type` are required:

    [actions."brands.extract"]
    provider = "piapi"
    model = "gpt-4o"
    task_type = "chat"
    fixed_input = { stream = false }       # stands above what the step gives
    default_input = { temperature = 0.2 }  # stands below it
    result = { brand_id = "brand.id" }     # names, and their paths in the normalised output
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from receiver.domain.graph import Fault, Issue, StepSpec, issue_of
from receiver.domain.references import BadReference, Path, look_up, parse_path
from receiver.domain.representations import result_url
from receiver.errors import BadRequest, SettingsError

LONGEST_NAME = 200
"""Of an action's own name, of a model and of a task type."""
_OWN = ("task_id", "job_id")
"""What Ringback says in every result: no action reads them from elsewhere."""
_MOST_NAMED = 5
_FORM = "<model>:<task_type>, such as kling:video_generation"


class UnknownAction(BadRequest):
    """There is no such action; `message` has the nearest that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a step does. `result` has the names to read from the output; none means the output itself."""

    name: str
    provider: str
    model: str
    task_type: str
    fixed_input: Mapping[str, Any] = field(default_factory=dict)
    default_input: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Actions:
    """The actions of the file by their names; `provider` is whose `<model>:<task_type>` are."""

    provider: str
    named: Mapping[str, Action] = field(default_factory=dict)

    def find(self, name: str) -> Action:
        """Return the action of this name. Raises `UnknownAction`."""
        if name in self.named:
            return self.named[name]
        # A model may have colons in its name; a task type has no colon.
        model, colon, task_type = name.rpartition(":")
        if colon and _is_name(model) and _is_name(task_type):
            return Action(name=name, provider=self.provider, model=model, task_type=task_type)
        raise UnknownAction(self._unknown(name[:LONGEST_NAME]))

    def issues(self, steps: Sequence[StepSpec]) -> Iterator[Issue]:
        """Yield an issue for each step whose action there is not."""
        for index, step in enumerate(steps):
            try:
                self.find(step.action)
            except UnknownAction as error:
                yield issue_of(step, Fault.UNKNOWN_ACTION, error.message, f"steps[{index}].action")

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name, self.named, n=_MOST_NAMED) or sorted(self.named)[:_MOST_NAMED]
        known = f"{', '.join(near)}, or " if near else ""
        return f"there is no action {name!r}; known are {known}{_FORM}"


def parse_actions(data: Mapping[str, Any], *, providers: Collection[str], default_provider: str) -> Actions:
    """Return the actions of a file that is read already, as TOML gives it.

    `providers` are the names that a table's `provider` may have; without one it is `default_provider`.
    Raises `SettingsError` that names every fault, one a line.
    """
    faults = [f"{name}: there is no such table; actions stand under [actions]" for name in data if name != "actions"]
    tables = data.get("actions", {})
    if not isinstance(tables, dict):
        faults.append("actions: must be a table of tables")
        tables = {}
    found: dict[str, _Table] = {}
    for name, table in tables.items():
        wrong = _misnamed(name, table)
        faults += wrong
        try:
            if not wrong:
                found[name] = _Table.model_validate(table, context=providers)
        except ValidationError as error:
            faults += _table_faults(name, error)
    if faults:
        raise SettingsError("\n".join(faults))
    return Actions(default_provider, {name: table.action(name, default_provider) for name, table in found.items()})


def build_input(action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's input: the action's default, what the step gives, the action's fixed, each above the one before.

    Name by name, and not within: a nested object replaces another whole.
    """
    return {**action.default_input, **given, **action.fixed_input}


def read_result(action: Action, output: Mapping[str, Any] | None, *, task_id: str) -> dict[str, Any]:
    """Return a step's result of its task's normalised output, with `task_id`, `job_id` and `result_url` besides.

    An action's paths may lead to these three too. One that leads nowhere leaves its name out: the task is paid for,
    and only a step that needs the name has a reason to fail.
    """
    output = dict(output or {})
    own = {"task_id": task_id, "job_id": task_id}
    whole = {**output, "result_url": result_url(output) or output.get("result_url"), **own}
    if not action.result:
        return whole
    read = {name: value for name, path in action.result.items() if (value := look_up(path, whole)) is not None}
    return {"result_url": whole["result_url"], **read, **own}


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text == text.strip() and text.isprintable()


def _name(text: str) -> str:
    if not _is_name(text):
        raise ValueError(f"must have 1 to {LONGEST_NAME} characters, with no blank around")
    return text


def _path(text: str) -> str:
    try:
        parse_path(text)
    except BadReference as error:
        raise ValueError(error.message) from None
    return text


def _result_name(name: str) -> str:
    if name in _OWN:
        raise ValueError("Ringback's own, and always there")
    return _name(name)


def _provider(name: str, info: ValidationInfo) -> str:
    providers: Collection[str] = info.context or ()
    if name not in providers:
        raise ValueError(f"there is no provider {name[:LONGEST_NAME]!r}; known are {', '.join(sorted(providers))}")
    return name


ActionField = Annotated[str, AfterValidator(_name)]
ResultName = Annotated[str, AfterValidator(_result_name)]


class _Table(BaseModel):
    """An action's table in the file. The context of its validation is the providers' names."""

    model_config = ConfigDict(extra="forbid")

    provider: Annotated[str, AfterValidator(_provider)] | None = None
    model: ActionField
    task_type: ActionField
    fixed_input: dict[str, Any] = {}
    default_input: dict[str, Any] = {}
    result: dict[ResultName, Annotated[str, AfterValidator(_path)]] = {}

    def action(self, name: str, default_provider: str) -> Action:
        return Action(
            name=name,
            provider=self.provider or default_provider,
            model=self.model,
            task_type=self.task_type,
            fixed_input=self.fixed_input,
            default_input=self.default_input,
            result={each: parse_path(path) for each, path in self.result.items()},
        )


def _misnamed(name: str, table: Any) -> list[str]:
    where = f"actions.{name[:LONGEST_NAME]}"
    if not isinstance(table, dict):
        return [f"{where}: must be a table"]
    if table and not table.keys() & _Table.model_fields and all(isinstance(each, dict) for each in table.values()):
        return [f'{where}: a name with dots stands in quotes, such as [actions."{name}.{next(iter(table))}"]']
    if ":" in name:
        return [f"{where}: a name has no colon; a step says <model>:<task_type> without any table"]
    return [] if _is_name(name) else [f"{where}: a name has 1 to {LONGEST_NAME} characters, with no blank around"]


def _table_faults(name: str, error: ValidationError) -> list[str]:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = [f'actions."{name}".{".".join(str(part) for part in fault["loc"])}' for fault in faults]
    return [f"{at}: {fault['msg'].removeprefix('Value error, ')}" for at, fault in zip(where, faults, strict=True)]
