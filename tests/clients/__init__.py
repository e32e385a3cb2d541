"""Public clients of PiAPI, driven unchanged against the service: `python -m tests.clients`."""
