"""Alembic's environment: runs on the connection that `receiver.storage.schema` passes to it."""

from alembic import context

import models

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=models.metadata, transactional_ddl=False)
context.run_migrations()
