"""What operators see of the service: log records and metrics."""
