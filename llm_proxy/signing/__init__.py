"""The proxy's own key: an Ed25519 key in a file of its own, outside the store, that every worker shares."""

from __future__ import annotations

from llm_proxy.signing.key import SigningKey
from llm_proxy.signing.keyfile import KeyFileError, load_or_make, open_to_others

__all__ = ["KeyFileError", "SigningKey", "load_or_make", "open_to_others"]
