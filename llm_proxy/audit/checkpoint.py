"""A checkpoint: the ends of the writers' chains at one moment, signed.

The signature is Ed25519 over `SIGNED` and then the MessagePack array of every member but the signature, so
that it can be checked from the record alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llm_proxy.records.started import Place
from llm_proxy.signing import SigningKey
from llm_proxy.signing.key import b64, signed_by

SIGNED = b"llm-proxy checkpoint 1\n"
"""What a signature begins with: a key that signs receipts too never signs one for the other."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `audit.checkpoint`.

    `heads` are the ends of those chains that have grown since they were last signed, in order of writer: the
    others stand as in the checkpoints before. `previous` is None in a store's first.
    """

    at_us: int
    key: str
    """The signing key's id: the RFC 7638 thumbprint of its public half."""
    previous: Place | None
    heads: tuple[Place, ...]
    signature: str = ""
    """base64url."""


_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode
read_checkpoint = msgspec.json.Decoder(Checkpoint).decode


def signed_body(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The record's body: `checkpoint`, signed with `key`, whose id it names."""
    return _encode(msgspec.structs.replace(checkpoint, signature=b64(key.sign(_message(checkpoint)))))


def problem_of(checkpoint: Checkpoint, keys: Mapping[str, bytes]) -> str:
    """What is wrong with the signature; empty where one of `keys` (id to 32 public bytes) made it."""
    public = keys.get(checkpoint.key)
    if public is None:
        return f"it is signed by key {checkpoint.key[:64]}, which was not given"
    good = signed_by(public, checkpoint.signature, _message(checkpoint))
    return "" if good else "its signature is wrong"


def _message(checkpoint: Checkpoint) -> bytes:
    return SIGNED + _pack((checkpoint.at_us, checkpoint.key, checkpoint.previous, checkpoint.heads))
