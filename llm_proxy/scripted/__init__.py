"""A deterministic stand-in for a model vendor, in-process or on a port, played from a YAML script."""
