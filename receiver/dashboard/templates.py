"""Makes pages of templates. What others sent is escaped, and its control and direction characters are made visible."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from receiver.dashboard.documents import document, size_text
from receiver.dashboard.times import duration, moment
from receiver.domain.output_files import is_url
from receiver.printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_SHORT_ID = 12


def render(template: str, **values: Any) -> str:
    """Return what a template makes of values. Raises `UndefinedError` for a value that the template misses."""
    return _environment().get_template(template).render(values)


def render_part(template: str, **values: Any) -> Markup:
    """Return what a template makes of values, to be a part of another page."""
    # Templates escape all that is not markup already.
    return Markup(render(template, **values))  # noqa: S704 # nosec B704


@cache
def _environment() -> "Environment":
    # Imported here, so that no start waits for what makes pages.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from receiver.dashboard.prose import render_inline, render_markdown

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "document": document,
        "duration": duration,
        "moment": moment,
        "prose": lambda text: render_markdown(text).markup,
        "prose_line": render_inline,
        "short_id": short_id,
        "size": size_text,
    }
    environment.tests["http_url"] = is_url
    return environment


def _shown(value: Any) -> Any:
    """Return what is printed for a value: every text that is no markup of ours is made printable."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(str(value), lines=True)
    return value


def short_id(text: str) -> str:
    """Return the end of an id, which tells newer ones apart; another text as it is."""
    return text[-_SHORT_ID:] if len(text) == 36 else text
