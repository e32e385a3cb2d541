"""Running the service: the process that serves, and the processes of several workers."""
