"""Organizations in addition to `default`, made without the API."""

from models import Scope
from receiver.clock import utc_now
from receiver.domain.ids import new_id
from receiver.domain.keyring import hash_api_key
from tests.fakes.rows import change, select
from tests.fakes.world import World


def another_organization(world: World, *, owns_provider_account: bool = False) -> dict[str, str]:
    """Create an organization with its own admin key; return the header that authenticates as it."""
    name, secret, now = new_id(), f"the-key-of-{new_id()}", utc_now().replace(tzinfo=None).isoformat(" ")
    values = (new_id(), name, owns_provider_account, now)
    change(
        world, "INSERT INTO organization (uid, name, owns_provider_account, created_at) VALUES (?, ?, ?, ?)", *values
    )
    (organization,) = select(world, "SELECT id FROM organization WHERE name = ?", name)
    change(
        world,
        "INSERT INTO api_key (uid, organization_id, name, scope, hash, hint, created_at) "
        f"VALUES (?, ?, 'theirs', '{Scope.ADMIN}', ?, 'the-', ?)",
        *(new_id(), organization["id"], hash_api_key(secret), now),
    )
    return {"x-api-key": secret}
