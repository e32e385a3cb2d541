"""The text that replaces a secret wherever a value is stored, logged or returned without it."""

REDACTED = "***"
