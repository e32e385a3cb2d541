"""The history of the schema, for Alembic."""

HEAD = "0002"
"""The newest revision. Written down here too, so that a start need not read the whole history to know it."""
