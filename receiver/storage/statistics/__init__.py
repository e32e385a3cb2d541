"""Statistics: counting the logs, keeping the sums, and reading them."""
