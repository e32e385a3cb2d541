"""Rules without I/O: everything here is a pure function of its arguments."""
