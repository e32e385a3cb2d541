"""Real servers on loopback that stand for what Ringback talks to: a provider, subscribers, the service itself."""
