"""All SQL of Ringback. Nothing outside this package imports SQLAlchemy (`pyproject.toml` has the contract)."""
