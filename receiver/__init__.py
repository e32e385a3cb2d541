"""Ringback's verbs: receive, track, tell. The nouns are in `models`, the history in `migrations`."""
