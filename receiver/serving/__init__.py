"""Running the service: what is prepared once, the process that serves, and the supervisor of several workers."""
