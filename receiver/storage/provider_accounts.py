"""Accounts at providers: their rows, which are changed by administrators and never deleted."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select, update

from receiver.storage.organizations import DEFAULT_ORGANIZATION, lock_organization
from receiver.storage.tables import organizations, provider_accounts
from receiver.storage.transaction import Transaction, Values

Row = Mapping[str, Any]

MOST_ACCOUNTS = 100
"""Of one owner at one provider."""
_WITH_ORGANIZATION = select(provider_accounts, organizations.c.uid.label("organization_uid")).select_from(
    provider_accounts.outerjoin(organizations, provider_accounts.c.organization_id == organizations.c.id)
)
_CHOICE = ("id", "uid", "provider", "name", "organization_id", "is_default", "updated_at", "removed_at")


def accounts_changed_since(since: datetime | None) -> Select[Any]:
    """Return the query for what a choice needs of the accounts that changed since then; None: of all."""
    table = provider_accounts.c
    query = select(*(table[name] for name in _CHOICE))
    return query if since is None else query.where(table.updated_at >= since)


def account_by_key(key: int) -> Select[Any]:
    """Return the query for the account with this row key, also a removed one."""
    return _WITH_ORGANIZATION.where(provider_accounts.c.id == key)


def account_by_id(uid: str) -> Select[Any]:
    """Return the query for the account with this id, also a removed one."""
    return _WITH_ORGANIZATION.where(provider_accounts.c.uid == uid)


def accounts_in_use(organization_id: int | None) -> Select[Any]:
    """Return the query for the accounts that an organization may use, oldest first; None: for those of all."""
    table = provider_accounts.c
    query = _WITH_ORGANIZATION.where(table.removed_at.is_(None)).order_by(table.id)
    return query if organization_id is None else query.where(_is_usable(organization_id))


def account_in_use(organization_id: int | None, provider: str, *, uid: str = "", name: str = "") -> Select[Any]:
    """Return the query for one of them, by its id or its name; the organization's own before everyone's."""
    table = provider_accounts.c
    is_it = table.uid == uid if uid else table.name == name
    query = _WITH_ORGANIZATION.where(table.removed_at.is_(None), table.provider == provider, is_it)
    if organization_id is not None:
        query = query.where(_is_usable(organization_id))
    return query.order_by(table.organization_id.is_(None)).limit(1)


def _is_usable(organization_id: int) -> ColumnElement[bool]:
    table = provider_accounts.c
    return or_(table.organization_id.is_(None), table.organization_id == organization_id)


def accounts_page(organization_id: int | None, provider: str, limit: int, before: int | None) -> Select[Any]:
    """Return the query for a page of the same accounts of a provider, newest first."""
    table = provider_accounts.c
    is_there = (table.removed_at.is_(None), table.provider == provider)
    query = _WITH_ORGANIZATION.where(*is_there).order_by(table.id.desc()).limit(limit)
    if organization_id is not None:
        query = query.where(_is_usable(organization_id))
    return query if before is None else query.where(table.id < before)


async def insert_account(tx: Transaction, values: Values) -> str | None:
    """Insert an account; return why that cannot be, None if it is done.

    One that is the default takes that from the one before. Who adds one for the same owner at the same time waits.
    """
    await _lock_owner(tx, values["organization_id"])
    table = provider_accounts.c
    of_owner = _of_owner(values)
    if await tx.execute(select(table.id).where(of_owner, table.name == values["name"])):
        return f"there is an account {values['name']!r} of {values['provider']} already: choose another name"
    if (await tx.execute(select(func.count()).where(of_owner)))[0][0] >= MOST_ACCOUNTS:
        return f"there are {MOST_ACCOUNTS} accounts of {values['provider']} already: remove one first"
    if values["is_default"]:
        await _no_default(tx, values, values["created_at"])
    await tx.execute(insert(provider_accounts), [dict(values)])
    tx.leaves(lambda: select(table.id).where(table.uid == values["uid"]), is_lasting=True)
    return None


async def change_account(
    tx: Transaction, account: Row, values_of: Callable[[Row], Values], now: datetime
) -> tuple[Row, Row] | None:
    """Change columns of an account; return its row as it was and as it is, None if it was removed meanwhile.

    `values_of` makes the new values from the row as it is when no one else can change it.
    """
    await _lock_owner(tx, account["organization_id"])
    table = provider_accounts.c
    is_it = and_(table.uid == account["uid"], table.removed_at.is_(None))
    found = await tx.execute(select(provider_accounts).where(is_it).with_for_update(key_share=True))
    if not found:
        return None
    was = dict(found[0]._mapping)
    changed = {**values_of(was), "updated_at": now}
    if changed.get("is_default"):
        await _no_default(tx, account, now)
    await tx.execute(update(provider_accounts).where(is_it).values(**changed))
    return was, {**was, **changed}


async def _no_default(tx: Transaction, account: Row, now: datetime) -> None:
    """Let no account of the same owner and provider be the default."""
    others = (_of_owner(account), provider_accounts.c.is_default)
    await tx.execute(update(provider_accounts).where(*others).values(is_default=False, updated_at=now))


def _of_owner(account: Row) -> ColumnElement[bool]:
    table = provider_accounts.c
    is_owner = table.organization_id.is_not_distinct_from(account["organization_id"])
    return and_(table.provider == account["provider"], is_owner, table.removed_at.is_(None))


async def _lock_owner(tx: Transaction, organization_id: int | None) -> None:
    """Lock the organization whose accounts are changed, for everyone's accounts the operator's."""
    if organization_id is not None:
        await lock_organization(tx, organization_id)
        return
    operator = select(organizations.c.id).where(organizations.c.name == DEFAULT_ORGANIZATION)
    await tx.execute(operator.with_for_update(key_share=True))
