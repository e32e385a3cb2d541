"""Rules without I/O: everything here is a pure function of its arguments.

No module reads a clock, a random generator, a file or a setting: `now` and `jitter` are arguments. The few exceptions,
which create random ids, keys and secrets, say so in their own docstrings.
"""
