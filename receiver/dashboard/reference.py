"""The reference of the API, made of its description (`/openapi.json`): once in a process, and searched by its texts."""

import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import Any

import orjson
from markupsafe import Markup, escape
from msgspec import Struct
from msgspec.structs import replace

from receiver.dashboard.documents import coloured
from receiver.dashboard.prose import render_inline, render_markdown
from receiver.dashboard.reference_fields import DocumentPart, SchemaFields, ShownField, component_of
from receiver.dashboard.reference_samples import ADDRESS, JSON, Samples, curl
from receiver.dashboard.templates import render_part

_CODE = re.compile(r"^- `(\w+)`: ", re.MULTILINE)
_TAG = re.compile(r"<[^>]*>")
_FOLDED = "<details"
"""What begins here is not searched: examples, and errors that most operations have."""
_METHODS = ("get", "post", "patch", "put", "delete")


class ReferenceEntry(Struct, frozen=True):
    """A part of the page that is found or not: an operation, a format, an error, an object. `text` is searched."""

    anchor: str
    title: str
    markup: Markup
    text: str

    @property
    def short_title(self) -> str:
        """The title up to its first comma, for the contents."""
        return self.title.partition(",")[0]


class ReferenceSection(Struct, frozen=True):
    """Entries of one kind. `kind` is how they are shown: `parts`, or `rows` of a table."""

    anchor: str
    title: str
    intro: Markup
    entries: tuple[ReferenceEntry, ...]
    kind: str = "parts"


class ApiReference(Struct, frozen=True):
    """All of the page: what is true of all operations, then the sections."""

    intro: Markup
    sections: tuple[ReferenceSection, ...]

    def at(self, address: str) -> "ApiReference":
        """Return it with examples for the reader's address."""
        sections = (
            replace(section, entries=tuple(_placed(each, address) for each in section.entries))
            for section in self.sections
        )
        return ApiReference(self.intro, tuple(sections))


class ShownAnswer(Struct, frozen=True):
    """An answer: its status, what it is, and of an error the codes."""

    status: str
    text: Markup
    type: Markup
    codes: Sequence[str]


def is_found(entry: ReferenceEntry, query: str) -> bool:
    """Return whether an entry has all words of a query."""
    return all(word in entry.text for word in query.lower().split())


def build_reference(document: DocumentPart, page: str) -> ApiReference:
    """Return the reference of a description. `page` is its URL, with the prefix of a proxy."""
    return _Builder(document, page).build()


def _placed(entry: ReferenceEntry, address: str) -> ReferenceEntry:
    return replace(entry, markup=entry.markup.replace(ADDRESS, address))


class _Builder:
    def __init__(self, document: DocumentPart, page: str) -> None:
        self._document = document
        self._page = page
        self._fields = SchemaFields(document, page)
        self._samples = Samples(document)
        self._envelopes = {name for name, each in document["components"]["schemas"].items() if _is_envelope(each)}

    def build(self) -> ApiReference:
        intro = render_markdown(self._document["info"]["description"]).markup
        tags = tuple(map(self._tag, self._document["tags"]))
        return ApiReference(intro, (*tags, self._deliveries(), self._stream(), self._errors(), self._schemas()))

    def _tag(self, tag: DocumentPart) -> ReferenceSection:
        name = tag["name"]
        entries = [
            self._operation(method, path, item[method])
            for path, item in self._document["paths"].items()
            for method in _METHODS
            if method in item and name in item[method]["tags"]
        ]
        anchor = f"tag-{name.lower().replace(' ', '-')}"
        return ReferenceSection(anchor, name, escape(tag["description"]), tuple(entries))

    def _operation(self, method: str, path: str, operation: DocumentPart) -> ReferenceEntry:
        content = operation.get("requestBody", {}).get("content", {})
        body = self._samples.of_content(content[JSON], brief=True) if JSON in content else None
        return self._part(
            operation["operationId"],
            operation["summary"],
            "docs_operation.html",
            method=method.upper(),
            path=path,
            operation=operation,
            description=_beyond(operation["summary"], operation.get("description", "")),
            scope=_scope(operation),
            parameters=[self._parameter(each) for each in map(self._resolved, operation.get("parameters", ()))],
            media_types=list(content),
            body=self._fields.of(content[JSON].get("schema", {}), nested=True) if JSON in content else [],
            curl=curl(method.upper(), path, operation, body),
            answers=list(self._answers(operation)),
            sample=self._answer_sample(operation),
        )

    def _part(self, anchor: str, title: str, template: str, **values: Any) -> ReferenceEntry:
        markup = render_part(template, anchor=anchor, title=title, page=self._page, **values)
        text = f"{anchor} {unescape(_TAG.sub(' ', markup.partition(_FOLDED)[0]))}".lower()
        return ReferenceEntry(anchor, title, markup, text)

    def _resolved(self, part: DocumentPart) -> DocumentPart:
        """Return a parameter or a response, which may be a component."""
        if "$ref" not in part:
            return part
        _, _, kind, name = part["$ref"].split("/")
        resolved: DocumentPart = self._document["components"][kind][name]
        return resolved

    def _parameter(self, parameter: DocumentPart) -> tuple[str, ShownField]:
        shown = self._fields.shown(
            parameter["name"],
            parameter["schema"],
            parameter.get("description", ""),
            is_required=parameter.get("required", False),
        )
        return parameter["in"], shown

    def _answers(self, operation: DocumentPart) -> Iterator[ShownAnswer]:
        for status, each in operation["responses"].items():
            response = self._resolved(each)
            title, _, listed = response["description"].partition("\n\n")
            codes = _CODE.findall(listed)
            yield ShownAnswer(
                "other" if status == "default" else status,
                Markup("") if codes else render_inline(title),
                self._answer_type(response) if status.startswith("2") else Markup(""),
                codes,
            )

    def _answer_type(self, response: DocumentPart) -> Markup:
        content = response.get("content", {})
        if JSON not in content:
            return escape(", ".join(content))
        schema = content[JSON].get("schema", {})
        name = component_of(schema)
        properties = self._fields.resolved(schema).get("properties", {})
        if name not in self._envelopes and "data" not in properties:
            return self._fields.type_of(schema)
        items = properties["data"].get("properties", {}).get("data", {}).get("items")
        if items is not None:
            return Markup("<code>data</code> is a page of {}").format(self._fields.type_of(items))
        return Markup("<code>data</code> is {}").format(self._fields.type_of(properties["data"]))

    def _answer_sample(self, operation: DocumentPart) -> Markup | None:
        for status, each in operation["responses"].items():
            content = self._resolved(each).get("content", {})
            if status.startswith("2") and "schema" in content.get(JSON, {}):
                return _json(self._samples.of_content(content[JSON]))
        return None

    def _deliveries(self) -> ReferenceSection:
        entries = [
            self._part(
                item["post"]["operationId"],
                item["post"]["summary"].replace("`", ""),
                "docs_delivery.html",
                operation=item["post"],
                headers=[self._parameter(each)[1] for each in item["post"]["parameters"]],
                bodies=self._bodies(item["post"]),
                answers=list(self._answers(item["post"])),
            )
            for item in self._document["webhooks"].values()
        ]
        intro = render_part("docs_intro.html", about="deliveries", page=self._page)
        return ReferenceSection("sent", "What subscribers are sent", intro, tuple(entries))

    def _bodies(self, operation: DocumentPart) -> list[tuple[str, list[ShownField], Markup]]:
        """Return each body that a delivery may have: its name, its fields, an example."""
        (content,) = operation["requestBody"]["content"].values()
        schemas = content["schema"].get("anyOf") or [content["schema"]]
        return [
            (component_of(each) or "", self._fields.of(each), _json(self._samples.of_content({"schema": each})))
            for each in schemas
        ]

    def _stream(self) -> ReferenceSection:
        frame = {"$ref": "#/components/schemas/StreamFrame"}
        entry = self._part(
            "stream",
            "Follow events as they happen",
            "docs_stream.html",
            fields=self._fields.of(frame),
            address=ADDRESS,
        )
        return ReferenceSection("live", "Live events", Markup(""), (entry,))

    def _errors(self) -> ReferenceSection:
        # Imported here, as in `receiver.api.openapi`: a start does not need it.
        from receiver.api.description.errors import CODES

        entries = [
            self._part(f"error-{code}", code, "docs_error.html", statuses=each.statuses, meaning=each.meaning)
            for code, each in CODES.items()
        ]
        intro = render_part("docs_intro.html", about="errors", page=self._page)
        return ReferenceSection("errors", "Error codes", intro, tuple(entries), "rows")

    def _schemas(self) -> ReferenceSection:
        entries = [
            self._part(
                f"schema-{name}",
                name,
                "docs_schema.html",
                description=schema.get("description", ""),
                allowed=schema.get("enum", []),
                fields=self._fields.of(schema),
            )
            for name, schema in sorted(self._document["components"]["schemas"].items())
            if name not in self._envelopes
        ]
        return ReferenceSection("objects", "Objects", escape("What requests and answers consist of."), tuple(entries))


def _beyond(title: str, description: str) -> str:
    """Return what a description says besides its first words, which are the title."""
    rest = description.removeprefix(title).lstrip(".:; \n")
    return rest[:1].upper() + rest[1:]


def _scope(operation: DocumentPart) -> str:
    """Return the scope that a key needs; an empty text for what needs none."""
    return next((scopes[0] for each in operation["security"] for scopes in each.values() if scopes), "")


def _is_envelope(schema: DocumentPart) -> bool:
    properties = schema.get("properties", {})
    return "description" not in schema and {"id", "object", "status", "created_at", "data"} == set(properties)


def _json(value: Any) -> Markup:
    return coloured(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(), links=False)
