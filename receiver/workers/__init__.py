"""The loops: attend to due tasks, dispatch due deliveries; one supervisor keeps them going."""
