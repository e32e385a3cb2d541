"""The revisions of the database schema, for Alembic."""

HEAD = "0021"
"""The newest revision. Repeated here so that a start does not have to load Alembic and every revision to know it."""
