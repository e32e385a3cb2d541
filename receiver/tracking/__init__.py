"""The only writer of task state: create, submit, apply, attend, cancel."""
