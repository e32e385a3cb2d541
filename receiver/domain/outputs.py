"""The output of a task: normalised to the same fields for every model, and measured."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from receiver.domain.output_fields import (
    AUDIO,
    BOOKKEEPING,
    IMAGE,
    LONGEST_NAME,
    MODEL,
    OTHER,
    TEXT,
    URL_NAMES,
    VIDEO,
    meaning_of,
)
from receiver.domain.output_files import OutputFile, find_files, is_url

KINDS = (IMAGE, VIDEO, AUDIO)
"""The kinds of files that have a field of their own, such as `image_url`."""
_FILLED_NAMES = tuple(f"{kind}_url" for kind in KINDS)
_ADDED_NAMES = ("output_files", "image_urls", *_FILLED_NAMES)
"""The fields that `normalise_output` adds."""
_READ_WITH_IMAGE_URL = ("image_url", "temporary_image_urls", "discord_image_url")
"""Fields that PiAPI's clients read together with `image_urls`: with a copy in it they would show a picture twice."""


def normalise_output(output: Any, beside: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return a copy of `output` with `image_url`, `image_urls`, `video_url`, `audio_url` and `output_files`.

    `output_files` lists every file, as `{url, kind, name, content_type?}`. Nothing is removed, a field that has a value
    keeps it, and a field without a value is not added. `beside` has fields that stand next to the output in an older
    envelope; each is stored in the output under its own name, unless the output has a value there. An output that is
    not an object becomes `{"value": output}`, a blank one None. Never raises, whatever the types. Source:
    `receiver/providers/piapi/CONTRACT.md`, "Output, by model family" and "The older envelope".
    """
    result = _as_object(output)
    for name, value in (beside or {}).items():
        if not is_blank(value):
            result = {} if result is None else result
            if is_blank(result.get(name)):
                result[name] = value
    if result is None:
        return None
    _fill_names(result, find_files(result))
    return result


def main_url(output: Mapping[str, Any]) -> str | None:
    """Return the URL of the main result of a normalised output, None if it has none.

    A 3D file is the main result wherever there is one, for the videos and pictures beside it only show it. Else it is
    the video, the image or the sound, in this order, or else the first other file.
    """
    files = output.get("output_files")
    listed = [each for each in files if _is_listed(each)] if isinstance(files, list) else []
    named = [_first(output.get(name)) for name in ("video_url", "image_url", "image_urls", "audio_url")]
    candidates = (
        *(each["url"] for each in listed if each.get("kind") == MODEL),
        *filter(is_url, named),
        *(each["url"] for each in listed if each.get("kind") in (TEXT, OTHER)),
        *named,  # an address of another kind, such as s3://
    )
    return next((each for each in candidates if isinstance(each, str) and not is_blank(each)), None)


def result_urls(output: Mapping[str, Any]) -> list[str]:
    """Return the URLs of the files of a normalised output that are results, in their order."""
    files = output.get("output_files")
    return [each["url"] for each in files if _is_listed(each)] if isinstance(files, list) else []


def own_output(output: Mapping[str, Any]) -> Any:
    """Return what a model answered: a normalised output without the fields that were added to it.

    Those are the most fields that normalising the rest would add again, so one of the model's own that repeats another
    is left out too. The order of files may be another one since they were stored.
    """
    added = [name for name in _ADDED_NAMES if name in output]
    for number in range(len(added), -1, -1):
        for names in combinations(added, number):
            own = {name: value for name, value in output.items() if name not in names}
            again = normalise_output(own) or {}
            if again.keys() == output.keys() and set(result_urls(again)) == set(result_urls(output)):
                return own["value"] if own.keys() == {"value"} else own
    return dict(output)


def has_output(output: Any) -> bool:
    """Return whether there is a result: a value outside the bookkeeping fields, such as a percentage.

    A URL of what only comes with a result (a cover, a repeated input) is none.
    """
    # Of a normalised output these fields tell it at once: only results fill them.
    if isinstance(output, dict) and any(is_url(output.get(name)) for name in _FILLED_NAMES):
        return True
    leaves = [value for value in _leaves(output, skipping=BOOKKEEPING) if value]
    if not all(map(is_url, leaves)):
        return True
    # Most webhooks report progress alone, and need no look for files.
    files = find_files(_as_object(output) or {}) if leaves else []
    beside = {file.url for file in files if not file.is_result}
    return any(url.strip() not in beside for url in leaves)


def leaf_count(value: Any) -> int:
    """Return the number of values in `value`, at any depth. Null, blank text and empty containers do not count."""
    return sum(1 for _ in _leaves(value))


def is_blank(value: Any) -> bool:
    """Return whether a value says nothing: null, a blank text, an empty list or object."""
    return value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip())


def _as_object(output: Any) -> dict[str, Any] | None:
    if isinstance(output, dict):
        return dict(output)
    return None if is_blank(output) else {"value": output}


def _fill_names(result: dict[str, Any], files: list[OutputFile]) -> None:
    if not files:
        return
    found: dict[str, list[str]] = {}
    for file in files:
        if file.is_result:
            found.setdefault(file.kind, []).append(file.url)
    may_list_images = IMAGE in found and not any(_has_url(result.get(name)) for name in _READ_WITH_IMAGE_URL)
    for kind in KINDS:
        if kind in found and is_blank(result.get(f"{kind}_url")):
            result[f"{kind}_url"] = found[kind][0]
    if may_list_images and is_blank(result.get("image_urls")):
        result["image_urls"] = found[IMAGE]
    if is_blank(result.get("output_files")):
        result["output_files"] = [file.as_json() for file in files]


def _has_url(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(map(is_url, values))


def _is_listed(value: Any) -> bool:
    """Return whether a value is a file of `output_files` that does not only come with a result."""
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        return False
    return not meaning_of(str(value.get("name"))[:LONGEST_NAME]).is_beside


def _first(value: Any) -> Any:
    """Return the first item of a list, the URL of an object that has one, and any other value as it is."""
    first = (value[0] if value else None) if isinstance(value, list) else value
    urls = [first[name] for name in URL_NAMES if is_url(first.get(name))] if isinstance(first, dict) else []
    return urls[0].strip() if urls else first


def _leaves(value: Any, skipping: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Yield the values at any depth that are not blank. Not recursive: outputs may be nested deeper than the stack."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(value for key, value in item.items() if key not in skipping)
        elif isinstance(item, list):
            waiting.extend(item)
        elif not is_blank(item):
            yield item
