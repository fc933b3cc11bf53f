"""Fallbacks and aliases: which model leads on to which, and which of the names mean anything here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_proxy.config.names import resolves
from llm_proxy.importing.drafts import ModelDraft
from llm_proxy.importing.models import Wanted
from llm_proxy.importing.names import is_plain
from llm_proxy.importing.report import Notes
from llm_proxy.importing.routing import Settings
from llm_proxy.importing.source import Field

KINDS = {
    "fallbacks": "fallbacks",
    "context_window_fallbacks": "context_fallbacks",
    "content_policy_fallbacks": "content_fallbacks",
}
"""LiteLLM's key, and ours."""
_EVERY = "*"
_CONTEXT = "chosen by counting tokens before sending; there after the provider refused"


@dataclass(frozen=True, slots=True)
class _Chain:
    """Where one model leads. `of` is `*` for every model that has no chain of its own."""

    of: str
    to: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Onward:
    """All that the settings say of ways from one model to another, as yet unchecked."""

    chains: Mapping[str, tuple[_Chain, ...]]
    """By our key."""
    aliases: tuple[tuple[str, Field], ...]

    @property
    def wanted(self) -> Wanted:
        """The names in all of it."""
        begun = [chain.of for chains in self.chains.values() for chain in chains]
        ends = [f.text for chains in self.chains.values() for c in chains for f in c.to if f.text]
        named = [field.text for _, field in self.aliases if field.text]
        alone = tuple(dict.fromkeys(name for name in (*begun, *named) if name != _EVERY))
        return Wanted(alone, tuple(dict.fromkeys((*alone, *ends))))


def read_onward(settings: Settings) -> Onward:
    chains = {ours: tuple(_chains(settings.pick(theirs))) for theirs, ours in KINDS.items()}
    default = settings.pick("default_fallbacks")
    if default is not None:
        every = _Chain(_EVERY, (default,) if default.text else tuple(default.items()))
        chains["fallbacks"] = (*chains["fallbacks"], every)
    listed = settings.pick("model_group_alias")
    return Onward(chains, tuple(_aliases(listed) if listed else ()))


def _chains(field: Field | None) -> Iterator[_Chain]:
    """A list of mappings of one model each, or a mapping of all; a name, or a list of names, behind each."""
    if field is None:
        return
    for entry in field.items() or [field]:
        for of, to in entry.entries():
            yield _Chain(of, (to,) if to.text else tuple(to.items()))


def _aliases(field: Field) -> Iterator[tuple[str, Field]]:
    for alias, to in field.entries():
        yield alias, (to.get("model") or to)


def usable_aliases(onward: Onward, models: Iterable[str], notes: Notes) -> Iterator[tuple[str, str]]:
    """(alias, model) of those that can be written. Speaks of all."""
    names = set(models)
    for alias, field in onward.aliases:
        target = field.text
        if target is None or target not in names:
            notes.unsupported(field, "leads to no model of this file")
        elif alias in names:
            notes.unsupported(field, "a model has the alias's name")
        elif not is_plain(alias) or "*" in alias:
            notes.unsupported(field, "is an alias that is no plain name")
        else:
            note = "a model of its own with the same targets: its limits and breakers count apart"
            notes.approximate(field, f"models.{alias}", note)
            yield alias, target


def with_fallbacks(
    models: Sequence[ModelDraft], onward: Onward, aliases: Mapping[str, str], notes: Notes
) -> list[ModelDraft]:
    """The models with where they lead: an alias as its model. Speaks of every name in the chains."""
    names = tuple(model.name for model in models)
    found = {ours: _checked(ours, chains, names, notes) for ours, chains in onward.chains.items()}
    return [
        replace(
            model,
            fallbacks=_of(model.name, aliases, found["fallbacks"]),
            context_fallbacks=_of(model.name, aliases, found["context_fallbacks"]),
            content_fallbacks=_of(model.name, aliases, found["content_fallbacks"]),
        )
        for model in models
    ]


def _of(name: str, aliases: Mapping[str, str], chains: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    begun = (name, aliases.get(name, name), _EVERY)
    chain = next((chains[of] for of in begun if of in chains), ())
    return tuple(dict.fromkeys(to for to in chain if to != name))


def _checked(
    ours: str, chains: Sequence[_Chain], names: Sequence[str], notes: Notes
) -> dict[str, tuple[str, ...]]:
    """The chains by the model that they begin at; the first one for a model counts."""
    found: dict[str, tuple[str, ...]] = {}
    for chain in chains:
        every = chain.of == _EVERY
        if chain.of in found:
            for field in chain.to:
                notes.exact(field, note="has no effect, as there: an earlier entry says it of the same model")
        elif not every and chain.of not in names:
            for field in chain.to:
                notes.unsupported(field, f"is of {chain.of!r}, which is no model of this file")
        else:
            label = f"models.{chain.of}.{ours}"
            found[chain.of] = tuple(_usable(chain, label, names, notes))
    return found


def _usable(chain: _Chain, label: str, names: Sequence[str], notes: Notes) -> Iterator[str]:
    for field in chain.to:
        name = field.text
        if name is None:
            notes.unsupported(field, "is no model's name: define a model, and name it here")
        elif not resolves(name, names):
            notes.unsupported(field, f"{name!r} is no model of this file")
        elif name == chain.of:
            notes.unsupported(field, "leads back to the model itself")
        else:
            notes.exact(field, label, _CONTEXT if label.endswith(".context_fallbacks") else "")
            yield name
