"""The mark that stands in the place of a secret, wherever text that held one is kept, logged or shown."""

REDACTED = "***"
