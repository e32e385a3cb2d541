"""HTTP for programs: PiAPI's paths and Ringback's own, in two dialects, and health checks. No SQL, no rules."""
