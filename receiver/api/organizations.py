"""`/api/v1/organizations`: for the operator (admin keys of `default`). `/api/v1/organization`: for every key."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict

from models import Scope
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.api.lists import page, read_cursor
from receiver.api.organization_schemas import ChangeOrganization, CreateOrganization
from receiver.api.repetition import after_work
from receiver.api.schemas import Page
from receiver.clock import utc_now
from receiver.domain.audit_values import difference
from receiver.domain.keyring import hash_api_key, new_api_key
from receiver.domain.representations import iso
from receiver.errors import BadRequest, Conflict, NotAllowed, RingbackError
from receiver.organization_limits import LIMIT_NAMES
from receiver.storage import organizations as storage
from receiver.storage.audit import audit
from receiver.storage.keys import insert_key, insert_key_again, key_row
from receiver.storage.transaction import Transaction

Row = Mapping[str, Any]


async def create_organization(call: Call) -> Reply:
    """`POST /api/v1/organizations`: create an organization with its first admin key, which only this response has.

    A repetition whose first answer was lost returns the same key with a new secret, for no client got the first one.
    """
    await require_operator(call)
    wanted = await call.body(CreateOrganization)
    uid = call.new_id()
    row = {
        "uid": uid,
        "name": wanted.name,
        "limits": {name: value for name, value in wanted.limits.items() if value is not None} or None,
        "owns_provider_account": wanted.owns_provider_account,
        "created_at": utc_now(),
    }
    key, key_id, actor = new_api_key(), call.new_id(), call.actor()

    async def work(tx: Transaction) -> int | RingbackError:
        earlier = await tx.execute(storage.organization_by_id(uid)) if call.is_resumed else ()
        organization_id = earlier[0].id if earlier else await storage.insert_organization(tx, row)
        if organization_id is None:
            return Conflict(f"there is an organization {wanted.name!r} already: choose another name")
        values = key_row(organization_id, key, wanted.key_name, Scope.ADMIN, utc_now(), uid=key_id)
        if not earlier:
            await insert_key(tx, values)
        elif not await insert_key_again(tx, values):
            return Conflict("the key that this request created has been revoked since: send a new Idempotency-Key")
        await audit(tx, actor, "organization.create", uid, difference(None, {**_audited(row), "key_id": key_id}))
        return int(organization_id)

    await call.services.database.writer.run(work)
    call.services.authenticator.created(hash_api_key(key))
    made = await after_work(_changed(call, uid))
    return Reply({**_view(call, made), "key": key, "key_id": key_id}, "organization")


async def list_organizations(call: Call) -> Reply:
    """`GET /api/v1/organizations`: list all organizations, newest first."""
    await require_operator(call)
    query = call.query(Page)
    rows = await call.services.database.read(storage.organizations_page(query.limit + 1, read_cursor(query.cursor)))
    return page(rows, query.limit, [_view(call, row) for row in rows])


async def get_organization(call: Call) -> Reply:
    """`GET /api/v1/organizations/{id}`: return an organization, its limits and what it uses of them."""
    await require_operator(call)
    return await _reply(call, await _organization(call, call.path_id("organization_id")))


async def change_organization(call: Call) -> Reply:
    """`PATCH /api/v1/organizations/{id}`: change an organization's limits, or whether the provider account is its own.

    A limit of null is the default again; those that are not given stay.
    """
    await require_operator(call)
    row = await _organization(call, call.path_id("organization_id"))
    wanted = await call.body(ChangeOrganization)
    owns = wanted.owns_provider_account
    values = {} if owns is None else {"owns_provider_account": owns}
    if not wanted.limits and not values:
        raise BadRequest("the request names nothing to change: name at least one limit", code="no_changes")
    actor = call.actor()

    async def change(tx: Transaction) -> None:
        was, became = await storage.change_organization(tx, row["uid"], wanted.limits, values)
        await audit(tx, actor, "organization.change", row["uid"], difference(_audited(was), _audited(became)))

    await call.services.database.writer.run(change)
    return await _reply(call, await after_work(_changed(call, row["uid"])))


async def get_own_organization(call: Call) -> Reply:
    """`GET /api/v1/organization`: return your own organization, its limits, what it uses of them, and your key."""
    row, principal = await _own(call), call.principal
    key = {"id": principal.key_uid, "scope": principal.scope}
    return Reply({**_view(call, row), "used": await _used(call, row["id"]), "key": key}, "organization")


async def require_provider_account(call: Call, what: str) -> None:
    """Raise `NotAllowed` unless the provider account is the caller's own; `what` is what the request wants."""
    if not (await _own(call))["owns_provider_account"]:
        raise NotAllowed(
            f"{what} belongs to the provider account, which is not your organization's own: the operator can allow it "
            "(`ringback organization limits NAME --provider-account`)"
        )


def _audited(row: Row) -> dict[str, Any]:
    """Return what the audit log shows of an organization."""
    return {name: row[name] for name in ("name", "limits", "owns_provider_account")}


async def is_operator(call: Call) -> bool:
    """Return whether the key belongs to the operator's organization."""
    return bool((await _own(call))["name"] == storage.DEFAULT_ORGANIZATION)


async def require_operator(call: Call, what: str = "organizations and their limits are") -> None:
    """Raise `NotAllowed` unless the key belongs to the operator's organization: its scope was checked before."""
    if not await is_operator(call):
        raise NotAllowed(
            f"{what} the operator's: this call needs an admin key of the organization "
            f"{storage.DEFAULT_ORGANIZATION!r}; `GET /api/v1/organization` shows your own"
        )


async def _own(call: Call) -> Row:
    return (await call.services.database.read(storage.organization_by_key(call.organization_id)))[0]


async def _organization(call: Call, uid: str) -> Row:
    return await find_row(call.services.database, storage.organization_by_id(uid), "organization")


async def _changed(call: Call, uid: str) -> Row:
    """Return an organization whose change is on disk; from now on its limits hold in this process."""
    await call.services.known_limits.refresh()
    return await _organization(call, uid)


async def _reply(call: Call, row: Row) -> Reply:
    return Reply({**_view(call, row), "used": await _used(call, row["id"])}, "organization")


def _view(call: Call, row: Row) -> dict[str, Any]:
    """Return an organization: `limits` are those in force (null: none), `set_limits` those that were set for it."""
    return {
        "object": "organization",
        "id": row["uid"],
        "name": row["name"],
        "owns_provider_account": row["owns_provider_account"],
        "limits": asdict(call.services.known_limits.of(row["id"])),
        "set_limits": row["limits"] or {},
        "created_at": iso(row["created_at"]),
    }


async def _used(call: Call, organization_id: int) -> dict[str, float]:
    """Return what an organization uses, by the names of the limits and in their order."""
    quotas = call.services.quotas
    used = {
        **await quotas.usage.counts(organization_id),
        **quotas.delivery_use(organization_id),
        "streams": quotas.open_streams(organization_id),
        "creates_per_second": round(quotas.creates_per_second(organization_id), 1),
        "stored_bytes": quotas.usage.stored_bytes(organization_id),
    }
    return {name: used[name] for name in LIMIT_NAMES if name in used}
