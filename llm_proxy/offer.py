"""What a request offers its model, and what of it is withheld: pure data, and the request without that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from llm_proxy.policy.offers import Reason
from llm_proxy.policy.permitted import ALWAYS
from llm_proxy.records.view import Withheld
from llm_proxy.wire.cutting import Path, without
from llm_proxy.wire.declared import Choice, Declarations, Declared, Hosted
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit

_NO_TOOL = b'"none"'
_NAMESPACE_DEPTH = 2
"""A namespace's members stand two steps below it: `tools`, and their place there."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A request's declarations, each with the reason why it is not offered. `refusal` refuses the request."""

    declarations: Declarations
    reasons: tuple[Reason | None, ...]
    shadow: bool
    passes: bool
    """Only what the provider runs is looked at, and refused: `declare: pass`."""
    gone: tuple[Path, ...]
    put: Mapping[str, bytes]
    """Top-level values that take the place of others."""
    refusal: str
    withheld: tuple[Withheld, ...]
    allows: tuple[Hosted, ...]
    """What the provider may run."""

    @property
    def pending(self) -> tuple[int, ...]:
        """Which declarations of what the provider runs nothing spoke against so far."""
        tools = zip(self.declarations.tools, self.reasons, strict=True)
        return tuple([n for n, (tool, reason) in enumerate(tools) if tool.hosted and reason is None])

    @property
    def strips(self) -> bool:
        """Whether anything is taken out of requests."""
        return bool(self.gone or self.put)

    def on(self, declarations: Declarations) -> Offer:
        """The same, for a request with more or less of the same conversation."""
        known = {
            _key(tool): reason for tool, reason in zip(self.declarations.tools, self.reasons, strict=True)
        }
        reasons = [known.get(_key(tool)) for tool in declarations.tools]
        return offer(declarations, reasons, shadow=self.shadow, passes=self.passes)

    def edits(self, request: WireRequest) -> list[Edit]:
        """What takes the withheld out of `request`, whose declarations these are."""
        edits = without(request.body, request.spans, self.gone)
        return edits + [(*request.spans[key], value) for key, value in self.put.items()]

    def judged(self, reasons: Mapping[int, Reason]) -> Offer:
        """With what else spoke against some of the declarations."""
        both = [reasons.get(n, reason) for n, reason in enumerate(self.reasons)]
        return offer(self.declarations, both, shadow=self.shadow, passes=self.passes)


def offer(
    declarations: Declarations, reasons: Sequence[Reason | None], *, shadow: bool, passes: bool
) -> Offer:
    """The offer of a request. In shadow, reasons count only where they hold in shadow too."""
    told = [
        (tool, reason)
        for tool, reason in zip(declarations.tools, reasons, strict=True)
        if reason is not None and (tool.hosted or not passes)
    ]
    out = [(tool, reason) for tool, reason in told if not shadow or reason.rule in ALWAYS]
    left = [tool for tool in declarations.tools if not any(tool is other for other, _ in out)]
    withheld = tuple(
        Withheld(
            tool=tool.title,
            rule=reason.rule,
            why=reason.why,
            shadow=shadow and reason.rule not in ALWAYS,
        )
        for tool, reason in told
    )
    refusal = _unstrippable(out, passes=passes)
    paths = [path for tool, _ in out for path in tool.paths]
    empty = _emptied(paths, left)
    follow = {key for of in empty for key in declarations.follow.get(of, ())}
    put: dict[str, bytes] = {}
    for choice in declarations.choices if out else ():
        refusal = refusal or _refused(choice, out, left, nothing_left=choice.key in follow)
        if choice.key not in follow:
            paths += _unlisted(choice, out, left, put)
    gone = () if passes else (*_parents(paths, left), *((key,) for key in (*empty, *follow)))
    return Offer(
        declarations=declarations,
        reasons=tuple(reasons),
        shadow=shadow,
        passes=passes,
        gone=tuple(dict.fromkeys(gone)),
        put={} if passes else put,
        refusal=refusal,
        withheld=withheld,
        allows=tuple([hosted for tool in left for hosted in tool.hosted]),
    )


_Out = Sequence[tuple[Declared, Reason]]


def _unstrippable(out: _Out, *, passes: bool) -> str:
    """Why the whole request is refused, for a tool that can't be taken out of it, or isn't to be."""
    for tool, reason in out:
        if tool.fixed or passes:
            where = "inside a message" if tool.fixed else "by the provider itself"
            verb = "is declared" if tool.fixed else "would be run"
            return f"The tool {_shown(tool.title)} {verb} {where}, and {_said(reason)}. Leave it out."
    return ""


def _refused(choice: Choice, out: _Out, left: Sequence[Declared], *, nothing_left: bool) -> str:
    """Why a choice can't be kept to: the tool that it forces is not offered, or none is."""
    missing = _missing(out, left)
    if choice.named:
        names = [choice.named] if choice.named in missing else []
    elif choice.listed is not None:
        listed = [names for _, names in choice.listed]
        none = choice.required and all(names <= missing.keys() for names in listed)
        names = [name for names in listed for name in sorted(names)][:1] if none else []
    else:
        names = [out[0][0].title] if choice.required and nothing_left else []
    if not names:
        return ""
    reason = missing.get(names[0], out[0][1])
    return (
        f"{choice.key} asks for the tool {_shown(names[0])}, which is not offered: {_said(reason)}. "
        f"Choose another tool, or leave {choice.key} out."
    )


def _unlisted(choice: Choice, out: _Out, left: Sequence[Declared], put: dict[str, bytes]) -> list[Path]:
    """What of a list of allowed tools goes; where all of it does, no tool may be called."""
    missing = _missing(out, left)
    listed = choice.listed or ()
    paths = [path for path, names in listed if names and names <= missing.keys()]
    if paths and len(paths) == len(listed):
        put[choice.key] = _NO_TOOL
        return []
    return paths


def _missing(out: _Out, left: Sequence[Declared]) -> dict[str, Reason]:
    """The names under which nothing is left to choose."""
    kept = {name for tool in left for name in tool.chosen_by}
    return {name: reason for tool, reason in out for name in tool.chosen_by if name not in kept}


def _emptied(paths: Sequence[Path], left: Sequence[Declared]) -> list[str]:
    """The top-level lists of which nothing is left."""
    kept = {path[0] for tool in left for path in tool.paths}
    lists = [path[0] for path in paths if len(path) > 1]
    return [
        key for key in dict.fromkeys(lists) if isinstance(key, str) and key != "input" and key not in kept
    ]


def _parents(paths: Sequence[Path], left: Sequence[Declared]) -> list[Path]:
    """The paths, those of a namespace's members made one where none of them is left."""
    kept = {path[:-_NAMESPACE_DEPTH] for tool in left for path in tool.paths}
    return [
        path[:-_NAMESPACE_DEPTH] if _in_namespace(path) and path[:-_NAMESPACE_DEPTH] not in kept else path
        for path in paths
    ]


def _in_namespace(path: Path) -> bool:
    """Whether a tool stands inside another: `tools`, 2, `tools`, 0."""
    above = path[:-_NAMESPACE_DEPTH]
    return len(above) > 1 and above[-_NAMESPACE_DEPTH] == "tools" and path[-_NAMESPACE_DEPTH] == "tools"


def _key(tool: Declared) -> Declared:
    """The declaration, wherever it stands."""
    return replace(tool, paths=())


def _said(reason: Reason) -> str:
    return f"rule {reason.rule!r} says no ({reason.why})"


def _shown(name: str) -> str:
    return repr(name[:80])
