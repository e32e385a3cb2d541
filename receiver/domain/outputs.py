"""What a task gave: the same four names for its URLs whatever the model's own form, and how much of it there is."""

from collections.abc import Iterator
from typing import Any

KINDS = ("image", "video", "audio")
_URL_NAMES = ("resource_without_watermark", "resourceWithoutWatermark", "resource", "url")
"""Where an object keeps its URL, the better one first."""
_BOOKKEEPING = frozenset(
    {"percent", "progress", "task_progress", "status", "type", "contentType", "id", "workId", "taskId", "task_id"}
    | {"createTime", "width", "height", "duration"}
)
"""What models also say before, or without, giving anything."""


def normalise_output(output: Any, works: Any = None) -> dict[str, Any] | None:
    """Return `output` with `image_url`, `image_urls`, `video_url`, `audio_url` filled in from the model's own form.

    `works` is the older envelope's list beside the output; it is kept as `output.works`. Nothing is taken away, and
    a name that already holds something keeps it; a name with nothing to hold is not added. An output that is no
    object is kept as `{"value": output}`; one that is nothing at all gives None. Never raises, whatever the types.
    Contract: PiAPI, "Output, by model family" and "The older envelope".
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
    """Say whether there is a result: something filled that is not mere bookkeeping such as a percentage."""
    return any(value for value in _leaves(output, skipping=_BOOKKEEPING))


def leaf_count(value: Any) -> int:
    """Return how many filled leaves `value` has: null, blank text and empty containers are none."""
    return sum(1 for _ in _leaves(value))


def _as_object(output: Any) -> dict[str, Any] | None:
    if isinstance(output, dict):
        return dict(output)
    return None if _is_blank(output) else {"value": output}


def _fill(result: dict[str, Any], name: str, found: str | list[str] | None) -> None:
    if found:
        result[name] = found


def _candidates(output: dict[str, Any], kind: str) -> Iterator[str]:
    """Yield the URLs of one kind, the best first."""
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
    """Return the URLs of a text, an object that holds one, or a list of either."""
    if not value:
        return []
    items = value if isinstance(value, list) else [value]
    return [url for url in map(_url, items) if url is not None]


def _url(value: Any) -> str | None:
    if isinstance(value, dict):
        return next((value[name] for name in _URL_NAMES if _is_url(value.get(name))), None)
    return value if _is_url(value) else None


def _is_url(value: Any) -> bool:
    # Some models put the picture itself, in base64, where others put its URL.
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def _is_blank(value: Any) -> bool:
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())


def _leaves(value: Any, skipping: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Yield what is filled, without recursion: a provider may nest deeper than Python's stack."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(value for key, value in item.items() if key not in skipping)
        elif isinstance(item, list):
            waiting.extend(item)
        elif not _is_blank(item):
            yield item
