"""Rules without I/O: everything here is a pure function of its arguments.

No module reads a clock, a file or a setting: `now` and `jitter` are arguments. There are two kinds of exceptions. The
functions that create ids, keys and secrets draw random bytes; the docstrings of their modules name them. `fair_queue`
and `endpoint_queues` are data structures whose methods change them.
"""
