"""Outbound webhooks: subscriptions, the address guard, building and signing messages, sending, and replays."""
