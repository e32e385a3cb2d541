"""`/api/v1/providers`: what providers can do, and the accounts at them. Credentials go in and never come back.

An organization uses its own accounts and everyone's; those of another organization do not exist for it. The operator
changes all of them, and alone says where an account's API is: a key of an organization could have this service call
into somebody else's network otherwise.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

from models import Scope
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.api.lists import page, read_cursor
from receiver.api.organizations import is_operator, require_operator
from receiver.api.provider_account_schemas import ChangeAccount, CreateAccount
from receiver.api.repetition import after_work
from receiver.api.schemas import Page
from receiver.domain.ids import is_id
from receiver.domain.representations import iso
from receiver.errors import BadRequest, NotAllowed, NotFound
from receiver.providers.registry import unknown_provider
from receiver.storage.known_accounts import ENVIRONMENT
from receiver.storage.organizations import organization_by_id
from receiver.storage.provider_accounts import account_in_use, accounts_in_use, accounts_page

Row = Mapping[str, Any]


async def list_providers(call: Call) -> Reply:
    """`GET /api/v1/providers`: list the providers, what each can do, and the accounts that you may use."""
    operates = await _operates(call)
    rows = await call.services.database.read(accounts_in_use(call.organization_id))
    found = []
    for name in call.services.providers:
        own = _view_of_environment(call, name, manages=operates)
        others = [_view(call, row, manages=_manages(call, row, operates)) for row in rows if row["provider"] == name]
        found.append({**_provider_view(call, name), "accounts": [own, *others]})
    return Reply({"object": "list", "data": found, "has_more": False, "next_cursor": None}, "list")


async def list_accounts(call: Call) -> Reply:
    """`GET /api/v1/providers/{provider}/accounts`: list the accounts that you may use, newest first.

    The operator sees those of all organizations. That of the environment is not among them.
    """
    provider, query, operates = _provider(call), call.query(Page), await _operates(call)
    owner = None if operates else call.organization_id
    rows = await call.services.database.read(accounts_page(owner, provider, query.limit + 1, read_cursor(query.cursor)))
    return page(rows, query.limit, [_view(call, row, manages=_manages(call, row, operates)) for row in rows])


async def get_account(call: Call) -> Reply:
    """`GET /api/v1/providers/{provider}/accounts/{account}`: return an account that you may use, by its name or id."""
    _provider(call)
    operates = await _operates(call)
    row = await _account(call, operates)
    return Reply(_view(call, row, manages=_manages(call, row, operates)), "provider_account")


async def create_account(call: Call) -> Reply:
    """`POST /api/v1/providers/{provider}/accounts`: add an account. Its credentials are stored encrypted."""
    provider = _provider(call)
    wanted = await call.body(CreateAccount)
    owner = await _owner(call, wanted)
    _check_credentials(call, provider, wanted.credentials, must_be_complete=True)
    uid, accounts = call.new_id(), call.services.accounts
    if call.is_resumed and (earlier := await accounts.find(uid)):
        return Reply(_view(call, earlier, manages=True), "provider_account")
    values = {
        "uid": uid,
        "provider": provider,
        "name": wanted.name,
        "organization_id": owner,
        "base_url": wanted.base_url,
        "calls_per_second": wanted.calls_per_second,
        "concurrency": wanted.concurrency,
        "is_default": wanted.is_default,
    }
    await accounts.add(values, wanted.credentials, call.actor())
    return await after_work(_changed(call, uid))


async def change_account(call: Call) -> Reply:
    """`PATCH /api/v1/providers/{provider}/accounts/{account}`: change an account, or rotate its credentials at once.

    What was created with it goes on with the new credentials.
    """
    provider, account = _provider(call), await _managed(call)
    wanted = await call.body(ChangeAccount)
    given = wanted.model_dump(exclude_unset=True)
    credentials = given.pop("credentials", None)
    if not given and not credentials:
        raise BadRequest("the request names nothing to change", code="no_changes")
    if "base_url" in given:
        await require_operator(call, "the addresses of accounts are")
    _check_credentials(call, provider, credentials or {}, must_be_complete=False)
    await call.services.accounts.change(account, given, credentials or None, call.actor())
    return await after_work(_changed(call, account["uid"]))


async def remove_account(call: Call) -> Reply:
    """`DELETE /api/v1/providers/{provider}/accounts/{account}`: remove an account; it takes no new tasks.

    Tasks that were created with it are followed to their end with the credentials that it has. One whose provider no
    file describes any more can be removed too.
    """
    account = await _managed(call)
    await call.services.accounts.remove(account, call.actor())
    await after_work(call.services.accounts.known.refresh())
    return Reply({"object": "provider_account", "id": account["uid"], "deleted": True}, "provider_account")


async def check_account(call: Call) -> Reply:
    """`POST /api/v1/providers/{provider}/accounts/{account}/check`: ask the provider about an account, which is free.

    The account of the environment has the name `default`, and is the operator's.
    """
    provider, row = _provider(call), None
    if call.path("account") == ENVIRONMENT:
        await require_operator(call, "the account of the environment is")
    else:
        row = await _managed(call)
    seen = await call.services.accounts.check(provider, None if row is None else row["id"])
    checked = {
        "object": "account_check",
        "provider": provider,
        "account": ENVIRONMENT if row is None else row["name"],
        "is_reached": seen.is_reached,
        "is_accepted": seen.is_reached and not seen.fault,
        "fault": seen.fault or None,
        "calls_left": seen.calls_left,
        "credits": seen.credits,
    }
    return Reply(checked, "account_check")


async def _changed(call: Call, uid: str) -> Reply:
    """Return an account whose change is on disk; from now on this process uses it as it is."""
    return Reply(_view(call, await call.services.accounts.changed(uid), manages=True), "provider_account")


def _provider_view(call: Call, name: str) -> dict[str, Any]:
    described = call.services.providers.described(name)
    can: dict[str, Any] = asdict(described.capabilities)
    return {
        "object": "provider",
        "name": name,
        "credentials": list(described.credential_names),
        "optional_credentials": list(described.optional_credentials),
        "capabilities": {**can, "proofs": list(can["proofs"])},
    }


def _provider(call: Call) -> str:
    name = call.path("provider")
    if name not in call.services.providers:
        raise NotFound(unknown_provider(name), code="provider_not_found", param="provider")
    return name


async def _operates(call: Call) -> bool:
    """Return whether the key is the operator's: an admin key of the operator's organization."""
    return call.principal.scope == Scope.ADMIN and await is_operator(call)


def _manages(call: Call, row: Row, operates: bool) -> bool:
    return call.principal.scope == Scope.ADMIN and (operates or row["organization_id"] == call.organization_id)


async def _account(call: Call, operates: bool) -> Row:
    """Return the row of the path's account, by its id or its name: one that may be used, for the operator any.

    Raises `NotFound`, also for one of another organization.
    """
    provider, wanted = call.path("provider"), call.path("account")
    if is_id(wanted.lower()):
        query = account_in_use(None if operates else call.organization_id, provider, uid=wanted.lower())
    else:
        query = account_in_use(call.organization_id, provider, name=wanted)
    rows = await call.services.database.read(query)
    if not rows:
        _provider(call)
        raise NotFound(f"{provider} has no account {wanted[:80]!r}", code="account_not_found", param="account")
    return rows[0]


async def _managed(call: Call) -> Row:
    """Return the row of the path's account, which the caller may change.

    Raises `NotFound`, and `NotAllowed` for everyone's, which is the operator's.
    """
    operates = await _operates(call)
    row = await _account(call, operates)
    if not operates and row["organization_id"] is None:
        raise NotAllowed(f"account {row['name']!r} is everyone's: the operator alone may change it")
    return row


async def _owner(call: Call, wanted: CreateAccount) -> int | None:
    """Return the row key of the organization whose account is added, None for everyone's. Raises `NotAllowed`."""
    if wanted.everyone or wanted.organization_id is not None or wanted.base_url is not None:
        await require_operator(call, "accounts of everyone and of others, and the addresses of accounts, are")
    if wanted.everyone and wanted.organization_id is not None:
        raise BadRequest("give one of `everyone` and `organization_id`", param="everyone")
    if wanted.organization_id is not None:
        uid = wanted.organization_id.lower()
        if not is_id(uid):
            raise BadRequest("is not a UUID", param="organization_id")
        return int((await find_row(call.services.database, organization_by_id(uid), "organization"))["id"])
    return None if wanted.everyone else call.organization_id


def _check_credentials(call: Call, provider: str, credentials: Mapping[str, str], *, must_be_complete: bool) -> None:
    """Raise `BadRequest` for credentials that the provider has not, for missing ones, and for what no header may have.

    Nothing of a credential is repeated.
    """
    described = call.services.providers.described(provider)
    needed, names = described.credential_names, (*described.credential_names, *described.optional_credentials)
    for name, value in credentials.items():
        if name not in names:
            known = ", ".join(names)
            raise BadRequest(f"{provider} takes {known}, and no {name[:80]!r}", param="credentials")
        if not (value.isascii() and value.isprintable()):
            raise BadRequest(f"{name} has characters that no header may have", param=f"credentials.{name}")
    if must_be_complete and (missing := [name for name in needed if name not in credentials]):
        raise BadRequest(f"{provider} needs {', '.join(needed)}; missing: {', '.join(missing)}", param="credentials")


def _view(call: Call, row: Row, *, manages: bool) -> dict[str, Any]:
    hints = row["hints"] or {}
    return {
        "object": "provider_account",
        "id": row["uid"],
        "provider": row["provider"],
        "name": row["name"],
        "source": "database",
        "organization_id": row["organization_uid"] if manages else None,
        "everyone": row["organization_id"] is None,
        "is_default": bool(row["is_default"]),
        "credentials": [{"name": name, "hint": (hints[name] or None) if manages else None} for name in sorted(hints)],
        "base_url": row["base_url"] if manages else None,
        "calls_per_second": row["calls_per_second"],
        "concurrency": row["concurrency"],
        "refusal": call.services.accounts.refusal(row["provider"], row["id"]),
        "may_manage": manages,
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def _view_of_environment(call: Call, provider: str, *, manages: bool) -> dict[str, Any]:
    account = call.services.providers.environment(provider)
    return {
        "object": "provider_account",
        "id": None,
        "provider": provider,
        "name": ENVIRONMENT,
        "source": "environment",
        "organization_id": None,
        "everyone": True,
        "is_default": False,
        "credentials": [{"name": name, "hint": None} for name, value in sorted(account.credentials.items()) if value],
        "base_url": account.base_url if manages else None,
        "calls_per_second": None,
        "concurrency": None,
        "refusal": call.services.accounts.refusal(provider, None),
        "may_manage": manages,
        "created_at": None,
        "updated_at": None,
    }
