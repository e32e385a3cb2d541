"""Test doubles that are real servers on loopback: a provider, subscribers, databases, and the service itself."""
