"""Makes whole tables of partitions again: the way back from `receiver.storage.postgresql.partitioning`.

The rows are copied, in one transaction, while nothing serves the database. A table's keys and indexes are then made as
the partitioned one has them; what is unique in each partition is unique in the whole table again.
"""

from receiver.storage.maintenance import Partitioned
from receiver.storage.postgresql.connecting import connected
from receiver.storage.postgresql.core_connection import CoreConnection
from receiver.storage.postgresql.dump import refuse_if_served
from receiver.storage.postgresql.locked_tables import TABLES, told_in_one_line
from receiver.storage.postgresql.migrating import lock_out_others
from receiver.storage.postgresql.partitions import DIVIDED, Divided, is_partitioned, like, own_keys_of, settings_of
from receiver.storage.postgresql.table_forms import form_of, run_all

_SESSION = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "0"}


async def unite_server(dsn: str) -> list[Partitioned]:
    """Unite the partitions of all tables, or of none. Raises `StartError` while a process serves the database."""
    await refuse_if_served(dsn)
    async with connected(dsn, _SESSION, command_seconds=None) as connection, told_in_one_line("united"):
        await lock_out_others(connection, dsn)
        await connection.exec_driver_sql("BEGIN")
        await connection.exec_driver_sql(f"LOCK TABLE {', '.join(TABLES)}")
        found = [await _unite(connection, divided) for divided in DIVIDED]
        await connection.exec_driver_sql("COMMIT")
        await connection.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(each.table for each in DIVIDED)}")
        return found


async def _unite(connection: CoreConnection, divided: Divided) -> Partitioned:
    table, parts = divided.table, f"{divided.table}_parts"
    if not await is_partitioned(connection, table):
        return Partitioned(table, False, None)
    form = await form_of(connection, table)
    own, settings = await own_keys_of(connection, divided.default), await settings_of(connection, divided.default)
    await run_all(
        connection,
        [
            *form.without_referring(),
            *form.renamed_to(parts),
            f"CREATE TABLE {table} {like(parts)}{settings}",
            f"INSERT INTO {table} SELECT * FROM {parts}",
            *(f"ALTER TABLE {table} ADD {key}" for key in own),
            *form.given(),
            f"DROP TABLE {parts}",
            *form.referring_again(checked=True),
        ],
    )
    return Partitioned(table, True, None)
