"""Drives one call over the providers: tries at targets, one after another or two at once."""
