"""From bytes to a verified update, through the one door, to a 200 that means: on disk."""
