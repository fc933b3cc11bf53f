"""`identity_from_user`: did the user name whom or what a call acts on?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from llm_proxy.policy.canonical import Json, canonical

MAX_VALUE = 1024
"""Characters; what is longer names nobody, and would make the search slow."""

_ALNUM = r"[^\W_]"


def folded(text: str) -> str:
    """NFKC and casefolded, and NFKC again since folding can undo it."""
    if text.isascii():
        return text.casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def proven(names: Iterable[str], arguments: Mapping[str, Json], user_text: str) -> bool:
    """Whether every value of the arguments `names` stands in `user_text` (already folded).

    A value counts where non-alphanumerics (or the ends) bound it. Absent and empty values are proven, lists
    element by element; a boolean or an object never is.
    """
    return all(_stands_in(value, user_text) for name in names for value in _values(arguments.get(name)))


def _values(value: Json) -> Iterator[Json]:
    if isinstance(value, list):
        for item in value:
            yield from _values(item)
    elif value is not None and value != "":
        yield value


def _stands_in(value: Json, text: str) -> bool:
    if isinstance(value, (bool, dict, list)) or value is None:
        return False
    wanted = folded(value if isinstance(value, str) else canonical(value))
    if len(wanted) > MAX_VALUE:
        return False
    return re.search(f"(?<!{_ALNUM}){re.escape(wanted)}(?!{_ALNUM})", text) is not None
