"""`ringback doctor`: is everything right on this machine, and what to mend. Each check is a function of its own."""
