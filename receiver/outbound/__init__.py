"""Telling subscribers: the address guard, the sender, one delivery's attempt, and who is told."""
