"""HTTP for programs: PiAPI's dialect, Pi's envelope, health. No SQL, no rules."""
