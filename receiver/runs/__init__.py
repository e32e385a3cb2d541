"""Runs: small graphs of tasks that are created, advanced, cancelled and retried as one."""
