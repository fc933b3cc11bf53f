"""The project's own benchmark: this proxy against a bare pass-through, in one run on one machine."""
