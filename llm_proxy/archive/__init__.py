"""Reads the record back: evidence into views, runs and listings."""
