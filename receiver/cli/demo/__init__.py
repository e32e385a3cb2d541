"""`ringback demo`: 200 tasks from create to notification on this machine, with every fault that Ringback survives."""
