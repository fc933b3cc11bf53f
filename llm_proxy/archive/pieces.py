"""A reply that several targets gave, each a piece of it, as the one reply that the agent got."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from llm_proxy.archive.content import fold
from llm_proxy.chat.reply import ChoiceReply, Reply
from llm_proxy.chat.seam import after
from llm_proxy.records.view import Piece
from llm_proxy.rounds import STRIDE
from llm_proxy.wire.dialects import DIALECTS


def fold_pieces(pieces: Sequence[Piece], last: Piece, *, stream: bool) -> Reply | None:
    """The whole reply, its end and its usage those of the last target; None where a piece is no longer kept.

    Of each earlier piece only the text counts that reached the agent; the last one may have given nothing.
    """
    so_far = ChoiceReply(index=0)
    for piece in pieces:
        reply = _reply(piece, stream=stream)
        if reply is None:
            return None
        new = _new(so_far.text, piece, reply)[: piece.chars]
        so_far = _joined(so_far, _choice(reply), new)
    reply = _reply(last, stream=stream)
    if not pieces:
        return reply
    if reply is None:
        return Reply(choices=(so_far,))
    whole = _joined(so_far, _choice(reply), _new(so_far.text, last, reply))
    return structs.replace(reply, choices=(whole,))


def fold_rounds(rounds: Sequence[Piece], last: Reply | None, *, stream: bool) -> Reply | None:
    """All that the model said in one call, what it was denied included; None where a part is no longer kept.

    Calls are numbered as the verdicts on them are. The end and the usage are those of the last reply.
    """
    whole = ChoiceReply(index=0)
    replies = [_reply(piece, stream=stream) for piece in rounds]
    for number, reply in enumerate([*replies, last]):
        if reply is None:
            return None
        choice = _choice(reply)
        numbered = [structs.replace(call, index=call.index + number * STRIDE) for call in choice.calls]
        texts = [text for text in (whole.text, choice.text) if text]
        whole = structs.replace(
            choice,
            text="\n\n".join(texts),
            reasoning=(*whole.reasoning, *choice.reasoning),
            calls=(*whole.calls, *numbered),
            server_tools=(*whole.server_tools, *choice.server_tools),
        )
    assert last is not None
    return structs.replace(last, choices=(whole,))


def _reply(piece: Piece, *, stream: bool) -> Reply | None:
    return None if piece.emitted is None else fold(DIALECTS[piece.dialect], piece.emitted, stream=stream)


def _new(text: str, piece: Piece, reply: Reply) -> str:
    """What the piece adds to `text`, which its target was given to go on with."""
    said = _choice(reply).text
    translation = DIALECTS[piece.dialect].translation
    assert translation is not None
    return after(text, said, trimmed=translation.trims_ending) if text else said


def _joined(so_far: ChoiceReply, choice: ChoiceReply, text: str) -> ChoiceReply:
    return structs.replace(choice, text=so_far.text + text, reasoning=(*so_far.reasoning, *choice.reasoning))


def _choice(reply: Reply) -> ChoiceReply:
    return reply.choices[0] if reply.choices else ChoiceReply(index=0)
