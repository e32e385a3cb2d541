"""Ringback: receives providers' webhooks, tracks tasks and runs, and delivers their events to subscribers.

`receiver/README.md` is the map. The tables are in `models`, the history of the schema in `migrations`.
"""
