"""The pages of providers: what each can do, and the accounts at it; adding one, rotating, checking and removing it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from receiver.api import provider_accounts as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.visit import Visit
from receiver.storage.known_accounts import ENVIRONMENT

PATH = "/providers"
CREDENTIAL = "credential."
"""Fields of forms with a credential begin so."""
_TEXTS = ("name", "base_url", "organization_id")
_NUMBERS = ("calls_per_second", "concurrency")
_MARKS = ("is_default", "everyone")
_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND})


async def show_providers(visit: Visit) -> Response:
    """Show all providers with the accounts that may be used."""
    return await _list(visit)


async def add_account(visit: Visit) -> Response:
    """Add an account; after a refusal the form is shown again, without the credentials."""
    provider, form = visit.path("provider"), visit.form
    given: dict[str, Any] = {name: form[name].strip() for name in _TEXTS if form.get(name, "").strip()}
    given |= {name: True for name in _MARKS if name in form}
    numbers = {name: _number(form[name]) for name in _NUMBERS if form.get(name, "").strip()}
    try:
        body = {**given, **numbers, "credentials": _credentials(form)}
        added = await visit.ask(api.create_account, provider=provider, body=body)
    except ApiRefusal as refused:
        if refused.status not in _REFUSALS:
            raise
        return await _list(visit, refused, {**given, **{name: form[name] for name in numbers}, "provider": provider})
    return visit.done(f"The account {added['name']} of {provider} is added.", otherwise=PATH)


async def show_account(visit: Visit) -> Response:
    """Show an account, and the forms that change it."""
    provider, name = _names(visit)
    account = await visit.ask(api.get_account, provider=provider, account=name)
    described = visit.services.providers.described(provider)
    names = (*described.credential_names, *described.optional_credentials)
    return visit.page("provider_account.html", account=account, names=names, field=CREDENTIAL)


async def rotate(visit: Visit) -> Response:
    """Replace the credentials that the form has."""
    return await _act(visit, "The new credentials are in use.", body={"credentials": _credentials(visit.form)})


async def make_default(visit: Visit) -> Response:
    """Have tasks use the account that name none."""
    return await _act(visit, "Tasks that name no account use it from now on.", body={"is_default": True})


async def check(visit: Visit) -> Response:
    """Ask the provider about the account, and tell what it answered."""
    provider, name = _names(visit)
    otherwise = PATH if name == ENVIRONMENT else _path(provider, name)
    try:
        found = await visit.ask(api.check_account, provider=provider, account=name, body={})
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=otherwise)
    who = f"{provider}, account {found['account']}"
    if found["is_accepted"]:
        return visit.done(f"{who}: the provider accepts the key.", otherwise=otherwise)
    return visit.done(f"{who}: {found['fault']}", otherwise=otherwise, kind="failed")


async def remove(visit: Visit) -> Response:
    """Remove the account."""
    provider, name = _names(visit)
    try:
        await visit.ask(api.remove_account, provider=provider, account=name)
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=_path(provider, name))
    return visit.done("The account is removed; its tasks are followed to their end.", otherwise=PATH)


async def _act(visit: Visit, said: str, body: Mapping[str, Any]) -> Response:
    provider, name = _names(visit)
    try:
        await visit.ask(api.change_account, provider=provider, account=name, body=body)
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=_path(provider, name))
    return visit.done(said, otherwise=_path(provider, name))


async def _list(visit: Visit, fault: ApiRefusal | None = None, given: Mapping[str, Any] | None = None) -> Response:
    found = await visit.ask(api.list_providers)
    return visit.page(
        "providers.html",
        status=fault.status if fault else 200,
        providers=found["data"],
        fault=fault,
        given=given or {},
        field=CREDENTIAL,
        environment=ENVIRONMENT,
    )


def _names(visit: Visit) -> tuple[str, str]:
    return visit.path("provider"), visit.path("account")


def _path(provider: str, account: str) -> str:
    return f"{PATH}/{quote(provider, safe='')}/accounts/{quote(account, safe='')}"


def _credentials(form: Mapping[str, str]) -> dict[str, str]:
    fields = ((name.removeprefix(CREDENTIAL), value) for name, value in form.items() if name.startswith(CREDENTIAL))
    return {name: value.strip() for name, value in fields if value.strip()}


def _number(text: str) -> float | str:
    """Return a number of a form; what is none stays a text, which the API refuses by name."""
    text = text.strip()
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return text
