"""Foreign formats, one module each: into OTLP, or out of it."""
