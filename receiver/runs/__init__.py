"""Small graphs of tasks: created, advanced, cancelled, retried."""
