"""The log of events and its readers: recording events, the in-memory feed, streams."""
