"""The background loops: due tasks, due deliveries, replays and clean-up; a supervisor restarts those that fail."""
