"""The output of a task: normalised to the same four URL fields for every model, and measured."""

from collections.abc import Iterator
from typing import Any

KINDS = ("image", "video", "audio")
_URL_NAMES = ("resource_without_watermark", "resourceWithoutWatermark", "resource", "url")
"""The fields in which an object may have its URL, the preferred one first."""
_BOOKKEEPING = frozenset(
    {"percent", "progress", "task_progress", "status", "type", "contentType", "id", "workId", "taskId", "task_id"}
    | {"createTime", "width", "height", "duration"}
)
"""Fields that models also fill when there is no result."""


def normalise_output(output: Any, works: Any = None) -> dict[str, Any] | None:
    """Return a copy of `output` with `image_url`, `image_urls`, `video_url` and `audio_url`, from the model's own form.

    Nothing is removed, a field that has a value keeps it, and a field without a value is not added. `works` is a list
    that the older envelope has next to the output; it is stored as `output.works`. An output that is not an object
    becomes `{"value": output}`, a blank one None. Never raises, whatever the types. Source:
    `receiver/providers/piapi/CONTRACT.md`, "Output, by model family" and "The older envelope".
    """
    result = _as_object(output)
    if isinstance(works, list) and works:
        result = result or {}
        if _is_blank(result.get("works")):
            result["works"] = works
    if result is None:
        return None
    for kind in KINDS:
        if _is_blank(result.get(f"{kind}_url")):
            _fill(result, f"{kind}_url", next(_candidates(result, kind), None))
    if _is_blank(result.get("image_urls")):
        _fill(result, "image_urls", _all_images(result))
    return result


def has_output(output: Any) -> bool:
    """Return whether there is a result: a value outside the bookkeeping fields, such as a percentage."""
    return any(value for value in _leaves(output, skipping=_BOOKKEEPING))


def leaf_count(value: Any) -> int:
    """Return the number of values in `value`, at any depth. Null, blank text and empty containers do not count."""
    return sum(1 for _ in _leaves(value))


def _as_object(output: Any) -> dict[str, Any] | None:
    if isinstance(output, dict):
        return dict(output)
    return None if _is_blank(output) else {"value": output}


def _fill(result: dict[str, Any], name: str, found: str | list[str] | None) -> None:
    if found:
        result[name] = found


def _candidates(output: dict[str, Any], kind: str) -> Iterator[str]:
    """Yield the URLs of one kind, the preferred one first."""
    yield from _urls(output.get(kind))
    yield from _work_urls(output.get("works"), kind)
    generation = output.get("generation")
    if isinstance(generation, dict):
        yield from _urls(generation.get(kind))
    if kind == "image":
        for name in ("image_urls", "temporary_image_urls", "discord_image_url"):
            yield from _urls(output.get(name))


def _all_images(output: dict[str, Any]) -> list[str]:
    return (
        _urls(output.get("temporary_image_urls"))
        or list(_work_urls(output.get("works"), "image"))
        or _urls(output.get("image_url"))
    )


def _work_urls(works: Any, kind: str) -> Iterator[str]:
    for work in works if isinstance(works, list) else ():
        if not isinstance(work, dict):
            continue
        yield from _urls(work.get(kind))
        if kind in str(work.get("contentType")).lower():
            yield from _urls(work.get("resource"))


def _urls(value: Any) -> list[str]:
    """Return the URLs in `value`: a string, an object with a URL, or a list of either."""
    if not value:
        return []
    items = value if isinstance(value, list) else [value]
    return [url for url in map(_url, items) if url is not None]


def _url(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((value[name] for name in _URL_NAMES if _is_url(value.get(name))), None)
    return value if _is_url(value) else None


def _is_url(value: Any) -> bool:
    # Some models return the image itself, in base64, in the field where others return its URL.
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def _is_blank(value: Any) -> bool:
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())


def _leaves(value: Any, skipping: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Yield the values at any depth that are not blank. Not recursive: outputs may be nested deeper than the stack."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(value for key, value in item.items() if key not in skipping)
        elif isinstance(item, list):
            waiting.extend(item)
        elif not _is_blank(item):
            yield item
