"""Mutants: copies of the service with one fault each, which the checker must catch."""
