"""What a condition may cost at most: found in its compiled form at load, since evaluation can't be stopped.

Measured with arguments of 64 KB: a pattern made of arguments took 16 s, and a chain of `map` that doubles a
text takes any memory there is. What stays allowed takes less than 100 ms of CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llm_proxy.policy.checked import Node

MAX_LISTS = 2
"""`map` and `filter` of one condition: 14 ms over 1,000 items, since the list is copied for each."""
MAX_JOINS = 16
"""`+` of texts or lists in one condition."""
MAX_PATTERN = 250
"""Weight of a pattern, see `pattern_weight`. It's compiled anew each time."""
MAX_PATTERN_IN_MACRO = 100
_CLASS_WEIGHT = 20
"""Of a Unicode class (`\\pL`), which compiles into very many ranges."""
_JOINS = frozenset({"add_string", "add_bytes", "add_list"})


def too_costly(tree: Node) -> Iterator[str]:
    """Why a condition isn't taken; nothing for most."""
    nodes = list(_walk(tree, depth=0))
    if any(node.builds_list and depth for node, depth in nodes):
        yield "has a map or filter inside another macro: too costly"
    if sum(node.builds_list for node, _ in nodes) > MAX_LISTS:
        yield f"has more than {MAX_LISTS} map or filter: use exists or all, which build no list"
    if any(node.kind == "ident" and node.name == "args" and depth for node, depth in nodes):
        yield "reads args inside a macro, once for each item: compare items with constants or agent.scopes"
    joins = [depth for node, depth in nodes if _joins(node)]
    if any(joins):
        yield "joins texts or lists inside a macro: too costly (for numbers write double(x) + double(y))"
    if len(joins) > MAX_JOINS:
        yield f"joins texts or lists more than {MAX_JOINS} times"
    for node, depth in nodes:
        if node.kind == "call" and node.name in ("matches", "contains"):
            yield from _search(node, depth)


def _walk(node: Node, *, depth: int) -> Iterator[tuple[Node, int]]:
    """Every node, with how many macros run it once for each of their items."""
    yield node, depth
    for n, part in enumerate(node.parts):
        if node.kind == "macro" and n > 0:
            yield from _walk_body(node, part, depth=depth + 1)
        else:
            yield from _walk(part, depth=depth)


def _walk_body(macro: Node, part: Node, *, depth: int) -> Iterator[tuple[Node, int]]:
    """As `_walk`, without the `+` by which a macro itself adds an item to its list."""
    own = part.kind == "call" and part.name == "_+_" and _is_accumulator(macro, part.parts[0])
    if own or (part.kind == "call" and part.name == "_?_:_"):
        for inner in part.parts:
            yield from _walk_body(macro, inner, depth=depth)
    else:
        yield from _walk(part, depth=depth)


def _is_accumulator(macro: Node, node: Node) -> bool:
    return node.kind == "ident" and node.name == macro.name


def _joins(node: Node) -> bool:
    return node.kind == "call" and node.name == "_+_" and not _JOINS.isdisjoint(node.overloads)


def _search(node: Node, depth: int) -> Iterator[str]:
    wanted = node.parts[-1].text
    if node.name == "contains":
        if depth and wanted is None:
            yield "searches for something else for each item of a macro: contains takes a constant there"
    elif wanted is None:
        yield "has a pattern that isn't a constant: matches takes a text in quotes"
    elif depth > 1:
        yield "has matches inside two macros: too costly"
    elif pattern_weight(wanted) > (MAX_PATTERN_IN_MACRO if depth else MAX_PATTERN):
        yield "has a pattern that is too costly: shorten it, or repeat less ({100} counts a hundred times)"


_REPEATED = re.compile(r"(.?)\{(\d+)(?:,(\d*))?\}", re.DOTALL)
_CLASS = re.compile(r"\\[pP]|\[:|\(\?[a-z]*i")


def pattern_weight(pattern: str) -> int:
    """How large a pattern gets when it's compiled, or more: its characters, and what it repeats by number.

    A repeated group counts as if the whole pattern were repeated.
    """
    classes = len(_CLASS.findall(pattern))
    each = _CLASS_WEIGHT if classes else 1
    weight, groups = len(pattern) + classes * _CLASS_WEIGHT, 1
    for before, least, most in _REPEATED.findall(pattern):
        times = max(1, int(least[:6]), int(most[:6] or 0))
        if before == ")":
            groups *= times
        else:
            weight += times * each
    return weight * groups
