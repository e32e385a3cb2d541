"""Proof of delivery: what was created, ended and delivered in a range of time, recomputed from the rows."""
