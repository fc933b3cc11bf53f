"""What goes to one target: the caller's own bytes where it speaks their dialect, a translation where not."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from msgspec import structs

from llm_proxy.chat.prefill import begun
from llm_proxy.chat.prompt import Message, Prompt, Role, TextPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.resume import Resume
from llm_proxy.seals import Seals
from llm_proxy.upstream.provider import Endpoint, Sending
from llm_proxy.wire.dialect import Dialect, Translation
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_responses.continued import answers, response_id
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit, splice

FOREIGN_SEAL = "reasoning sealed by another provider"
"""How the record names sealed reasoning that was left out of what a provider was sent."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One attempt's request: the caller's body with `edits`, unless it was `rewritten`."""

    dialect: Dialect
    sending: Sending
    edits: tuple[Edit, ...] = ()
    rewritten: bool = False
    dropped: tuple[str, ...] = ()
    """Hints that were left out."""
    resumes: Resume | None = None
    """The cut reply that it asks to go on with."""


def spoken(caller: Dialect, endpoint: Endpoint, absent: Container[str] = ()) -> Dialect | None:
    """The dialect to use with `endpoint`, the `absent` ones left out; None where there is none."""
    if caller.name in endpoint.dialects and caller.name not in absent:
        return caller
    if caller.translation is None:
        return None
    usable = (DIALECTS.get(name) for name in endpoint.dialects if name not in absent)
    return next((dialect for dialect in usable if dialect is not None and dialect.translation), None)


@dataclass(frozen=True, slots=True)
class Composer:
    """Composes requests to targets. `strict`: what can't be translated is refused instead of left out."""

    seals: Seals
    strict: bool = False

    def compose(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        model: str,
        cap: int | None,
        largest: int | None,
        absent: Container[str],
    ) -> Outgoing:
        """The request for `model` at `endpoint`, kept to `cap` output tokens where the caller set no cap.

        `largest` is the longest reply the model gives, for dialects that have to name one. Raises
        `ProxyError` for what can't be said there.
        """
        dialect = spoken(exchange.dialect, endpoint, absent)
        if dialect is None:
            raise unsayable(exchange, endpoint)
        if dialect is exchange.dialect and exchange.resume is None:
            return self._verbatim(exchange, endpoint, model, cap)
        return self._translated(exchange, endpoint, dialect, model, cap, largest)

    def _verbatim(self, exchange: Exchange, endpoint: Endpoint, model: str, cap: int | None) -> Outgoing:
        dialect, request = exchange.dialect, exchange.request
        assert request is not None
        rewritten = exchange.whole is not None and not keeps(exchange, endpoint)
        if rewritten:
            assert exchange.whole is not None
            request = exchange.told or exchange.whole
        elif exchange.told is not None and exchange.whole is None:
            request, rewritten = exchange.told, True
        elif exchange.rounds:
            request = redacted(exchange)
        if rewritten or exchange.rounds:
            request = _offered(exchange, request)
        request, retold = self._retold(exchange, endpoint, model, request)
        rewritten = rewritten or retold
        limit = (dialect.cap_field, cap) if cap is not None and dialect.cap_field else None
        edits = dialect.upstream_edits(request, model, limit, ask_usage=request.stream)
        if not rewritten:
            edits += exchange.redactions
            edits += _withholding(exchange, request)
        if not retold:
            edits += _answers(exchange, request)
        foreign = self.seals.foreign(dialect, request, issuer(endpoint), every=exchange.unsealed)
        dropped = (FOREIGN_SEAL,) if foreign else ()
        if foreign and dialect.unsealed and (calmed := dialect.unsealed(request, foreign)):
            foreign += calmed
            dropped = (FOREIGN_SEAL, "thinking")
        path = exchange.upstream_path or dialect.upstream_path
        sending = Sending(
            f"{path}?{exchange.query}" if exchange.query else path,
            splice(request.body, edits + foreign),
            exchange.passed,
            request.stream,
            exchange.method,
        )
        changed = () if rewritten else tuple(edits + foreign)
        return Outgoing(dialect, sending, changed, rewritten=rewritten, dropped=dropped)

    def _retold(
        self, exchange: Exchange, endpoint: Endpoint, model: str, request: WireRequest
    ) -> tuple[WireRequest, bool]:
        """The request with what the model was told that the agent wasn't; whether it's another one."""
        dialect = exchange.dialect
        if not exchange.rounds:
            return request, False
        assert dialect.onwards is not None
        edits = _answers(exchange, request)
        request = dialect.parse(splice(request.body, edits))
        messages = self._written(exchange, endpoint, model)
        return dialect.parse(splice(request.body, dialect.onwards.append(request, messages))), True

    def _written(self, exchange: Exchange, endpoint: Endpoint, model: str) -> tuple[bytes, ...]:
        """The rounds so far, as messages of the caller's dialect."""
        dialect = exchange.dialect
        assert dialect.translation is not None
        # Some dialects have every conversation open with a person.
        opening = Message(role=Role.USER, parts=(TextPart(text="."),))
        told = Prompt(model=model, messages=(opening, *turns(exchange)))
        prompt, _ = self.seals.told_to(told, issuer(endpoint), every=exchange.unsealed)
        return dialect.parse(dialect.translation.write_prompt(prompt).body).messages[1:]

    def _translated(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        dialect: Dialect,
        model: str,
        cap: int | None,
        largest: int | None,
    ) -> Outgoing:
        request, writer = exchange.request, dialect.translation
        assert request is not None
        assert writer is not None
        read = read_prompt(exchange)
        if exchange.rounds:
            read = structs.replace(read, messages=(*read.messages, *turns(exchange)))
        prompt, foreign = self.seals.told_to(read, issuer(endpoint), every=exchange.unsealed)
        most, resume = prompt.max_output or cap, exchange.resume
        if resume is not None:
            prompt = begun(prompt, resume.left.text)
            most = most and max(1, most - resume.used)
        most = most or (largest if dialect.cap_field == "max_tokens" else None)
        written = writer.write_prompt(structs.replace(prompt, model=model, max_output=most))
        dropped = tuple(dict.fromkeys((*prompt.dropped, *written.dropped)))
        if dropped and self.strict:
            raise ProxyError(
                Kind.UNSUPPORTED_FEATURE,
                f"The model's server speaks another dialect, which can't say: {', '.join(dropped)[:400]}. "
                "Leave these out, ask for another model, or have an operator set `translation: lenient`.",
                param=dropped[0],
                retryable=False,
            )
        sending = Sending(dialect.upstream_path, written.body, {}, request.stream)
        dropped = (FOREIGN_SEAL, *dropped) if foreign else dropped
        return Outgoing(dialect, sending, rewritten=True, dropped=dropped, resumes=resume)


def _answers(exchange: Exchange, request: WireRequest) -> list[Edit]:
    """Results for the calls that the response was denied which the request goes on from where it is kept."""
    if exchange.stored is None or not request.previous:
        return []
    return answers(request, [(d.id, d.custom, d.note) for d in exchange.stored.denied])


def turns(exchange: Exchange) -> tuple[Message, ...]:
    """What the model said of the call so far, and was told of it."""
    return tuple([message for round_ in exchange.rounds for message in (round_.turn, round_.results)])


def keeps(exchange: Exchange, endpoint: Endpoint) -> bool:
    """Whether the target keeps the response that the request goes on from, under the agent's id for it."""
    stored = exchange.stored
    if stored is None or stored.id == response_id(stored.call_id):
        return False
    return exchange.dialect.name in endpoint.dialects and stored.target == endpoint.target_id


def issuer(endpoint: Endpoint) -> str:
    """Who seals reasoning there."""
    return f"{endpoint.provider}@{endpoint.address}"


def unsayable(exchange: Exchange, endpoint: Endpoint) -> ProxyError:
    """No target can be asked this."""
    model = exchange.model
    return ProxyError(
        Kind.UNSUPPORTED_FEATURE,
        f"Model {model!r} is served by a provider ({endpoint.provider}) that has no {exchange.dialect.path}. "
        "Ask for a model that has it, or use another API.",
        retryable=False,
    )


def read_prompt(exchange: Exchange) -> Prompt:
    """The caller's request in neutral form, read once for all attempts."""
    if exchange.prompt is None:
        reader: Translation | None = exchange.dialect.translation
        assert reader is not None
        assert exchange.request is not None
        exchange.prompt = reader.read_prompt(
            _offered(exchange, exchange.told or exchange.whole or redacted(exchange))
        )
    return exchange.prompt


def _withholding(exchange: Exchange, request: WireRequest) -> list[Edit]:
    """What takes the tools out of `request` that its model is not offered."""
    offer, declares = exchange.offer, exchange.dialect.declares
    if offer is None or declares is None or not offer.strips:
        return []
    return (offer if request is exchange.request else offer.on(declares.read(request))).edits(request)


def _offered(exchange: Exchange, request: WireRequest) -> WireRequest:
    """`request` with the tools alone that its model is offered."""
    edits = _withholding(exchange, request)
    return exchange.dialect.parse(splice(request.body, edits)) if edits else request


def redacted(exchange: Exchange) -> WireRequest:
    """The caller's request with what is redacted of it."""
    request = exchange.request
    assert request is not None
    if not exchange.redactions:
        return request
    return exchange.dialect.parse(splice(request.body, exchange.redactions))
