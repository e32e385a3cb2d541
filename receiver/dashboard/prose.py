"""Markdown of ours as HTML: guides, and the texts of the description. Raw HTML in it is shown, and is none.

Links lead to other guides and to http and https alone; a file of the repository, which no reader of a page has, is its
name. Headings have anchors of their words, code can be copied.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape
from msgspec import Struct, field

from receiver.dashboard.documents import coloured

_WORDS = re.compile(r"[^\w\- ]")
_GUIDE = re.compile(r"(?:(?:deploy/guides/)?(?P<file>[\w-]+)\.md|/docs/(?P<page>[\w-]+))(?P<part>#[\w-]+)?")
"""A guide by its file, or a page by its path."""
_WEB = ("https://", "http://")


class Heading(Struct, frozen=True):
    """A heading with its anchor. `level` is 1 for the title."""

    level: int
    anchor: str
    text: str


class Rendered(Struct):
    """A text as HTML, and its headings."""

    markup: Markup
    headings: list[Heading] = field(default_factory=list)


GuidePlace = tuple[str, str]
"""The URL of a guide, and what it is called."""
PlaceOf = Callable[[str], GuidePlace | None]
"""Returns the place of a guide by its name; None if there is no such guide."""


def render_markdown(text: str, place_of: PlaceOf = lambda _: None) -> Rendered:
    """Return a text in Markdown as HTML."""
    env: dict[str, Any] = {"headings": [], "codes": 0, "tables": 0, "place_of": place_of}
    return Rendered(_markup(_parser().render(text, env)), env["headings"])


def anchor_of(text: str) -> str:
    """Return the anchor of a heading: the form that GitHub gives it, so that links work there too."""
    return _WORDS.sub("", text.lower().strip()).replace(" ", "-")


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table").disable("image")
    parser.core.ruler.push("guides", _rewrite)
    return parser


def _rewrite(state: Any) -> None:
    """Give headings their anchors, and links their places."""
    taken: set[str] = set()
    tokens: list[Token] = state.tokens
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            text = _text(following.children or ())
            anchor = anchor_of(text)
            while anchor in taken:
                anchor += "-1"
            taken.add(anchor)
            token.attrSet("id", anchor)
            state.env["headings"].append(Heading(int(token.tag[1]), anchor, text))
    for token in tokens:
        if token.children:
            token.children = _placed(token.children, state.env["place_of"])


def _text(tokens: Sequence[Token]) -> str:
    return "".join(each.content for each in tokens if each.type in ("text", "code_inline"))


def _placed(tokens: list[Token], place_of: PlaceOf) -> list[Token]:
    """Return inline tokens with the links that lead somewhere; of the others only the text. A name becomes a link."""
    placed: list[Token] = []
    links: list[GuidePlace | None] = []
    for token in tokens:
        if token.type == "link_open":
            links.append(_place(str(token.attrGet("href") or ""), place_of))
            if (place := links[-1]) is None:
                continue
            token.attrSet("href", place[0])
        elif token.type == "link_close" and links.pop() is None:
            continue
        elif token.type in ("text", "code_inline") and (place := _named(token.content, place_of)) is not None:
            placed += [_label(place)] if any(links) else _link(place)
            continue
        placed.append(token)
    return placed


def _place(href: str, place_of: PlaceOf) -> GuidePlace | None:
    """Return where a link of a guide leads; None for a file that is no guide."""
    if href.startswith(("#", *_WEB)):
        return href, href
    found = _GUIDE.fullmatch(href)
    place = place_of(found["file"] or found["page"]) if found is not None else None
    return None if found is None or place is None else (place[0] + (found["part"] or ""), place[1])


def _named(text: str, place_of: PlaceOf) -> GuidePlace | None:
    """Return the place of a guide that is named by its file alone."""
    return _place(text, place_of) if _GUIDE.fullmatch(text) else None


def _link(place: GuidePlace) -> list[Token]:
    return [Token("link_open", "a", 1, attrs={"href": place[0]}), _label(place), Token("link_close", "a", -1)]


def _label(place: GuidePlace) -> Token:
    return Token("text", "", 0, content=place[1])


class _Renderer(RendererHTML):
    """Renders code that can be scrolled by key and copied, and tables that scroll by themselves."""

    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Return a block of code."""
        token = tokens[idx]
        env["codes"] += 1
        language = token.info.strip()
        shown = coloured(token.content, links=False) if language == "json" else escape(token.content)
        return code_block(shown, f"code-{env['codes']}", f"{language or 'Text'}, block {env['codes']}")

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Return a block that is indented."""
        return self.fence(tokens, idx, options, env)

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Return the beginning of a table."""
        env["tables"] += 1
        return f'<div class="table" tabindex="0" role="region" aria-label="Table {env["tables"]}"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Return the end of a table."""
        return "</table></div>\n"

    def heading_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        """Return the end of a heading, with a link to itself."""
        token = tokens[idx]
        opening = next(each for each in reversed(tokens[:idx]) if each.type == "heading_open")
        if token.tag == "h1":
            return "</h1>\n"
        link = Markup(' <a class="anchor" href="#{}" aria-label="Link to this part">#</a></{}>\n')
        return link.format(opening.attrs["id"], token.tag)


def code_block(shown: str, anchor: str, label: str) -> Markup:
    """Return a block of code with a button that copies it. `shown` is escaped unless it is markup."""
    return Markup(
        '<div class="command"><pre tabindex="0" role="region" aria-label="{}"><code id="{}">{}</code></pre>'
        '<button type="button" class="quiet" data-copy="{}" hidden>Copy</button></div>\n'
    ).format(label, anchor, shown, anchor)


@cache
def render_inline(text: str) -> Markup:
    """Return one line of ours in Markdown as HTML, without a paragraph around it."""
    env: dict[str, Any] = {"headings": [], "codes": 0, "tables": 0, "place_of": lambda _: None}
    return _markup(_parser().renderInline(text, env))


def _markup(html: str) -> Markup:
    # The renderer escapes texts and attributes, and raw HTML is off.
    return Markup(html)  # noqa: S704 # nosec B704
