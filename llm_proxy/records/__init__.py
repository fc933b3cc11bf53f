"""The record: what every call left, durably, and how it's read back."""
