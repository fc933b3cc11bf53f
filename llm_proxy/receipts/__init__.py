"""Receipts: signed statements that the policy released one exact action. `verify` is for tool servers."""
