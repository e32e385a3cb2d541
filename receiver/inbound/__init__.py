"""Providers' webhooks: verified, parsed and applied; the 200 is sent when the update is on disk."""
