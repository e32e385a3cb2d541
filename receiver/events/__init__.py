"""The log of what happened, and all that read it: recording, the feed, streams."""
