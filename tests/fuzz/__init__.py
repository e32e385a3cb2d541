"""Requests of every kind to every route, made from a seed, and what must hold for each answer."""
