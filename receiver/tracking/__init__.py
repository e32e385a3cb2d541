"""Tracking: creates, submits, polls, updates, cancels, retries and adopts tasks. Only it writes their state."""
