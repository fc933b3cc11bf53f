"""`${VAR}`, `${VAR:-default}` and `$$` in the strings of a config file, filled in from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llm_proxy.yamlpos import Issue, KeyPath, Position, dotted

_TOKEN = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.DOTALL)


class ExpansionError(ValueError):
    """A reference that can't be filled in; the message names the variable and what to do, never a value."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its references replaced. What they are replaced by is not expanded again.

    `${VAR}` needs a variable that is set and not empty; `${VAR:-default}` takes the default where it is unset
    or empty (the default may be empty); `$$` is one dollar; a dollar before anything else stands for itself.
    Raises ExpansionError.
    """
    return _TOKEN.sub(lambda match: _replacement(match, environ), text) if "$" in text else text


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    reference = _REFERENCE.fullmatch(match[1])
    if not match[2] or reference is None or "${" in match[1]:
        raise ExpansionError(
            "holds a ${…} that is not ${VAR} or ${VAR:-default}: correct it, or write $$ for a plain dollar"
        )
    name, has_default, default = reference.groups()
    value = environ.get(name, "")
    if value:
        return value
    if has_default:
        return default
    state = "is set but empty" if name in environ else "is not set"
    raise ExpansionError(
        f"needs the environment variable {name}, which {state}: "
        f"export {name}=…, or give a default as in ${{{name}:-default}}"
    )


class Expander:
    """The scalar hook of one file. Collects what is missing instead of stopping, so that all of it is told.

    A string that could not be expanded stays as written, and its path is in `unresolved`: whatever else
    is wrong with it is not worth telling.
    """

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self.issues: list[Issue] = []
        self.unresolved: set[str] = set()

    def __call__(self, text: str, path: KeyPath, at: Position) -> str:
        try:
            return expand(text, self._environ)
        except ExpansionError as error:
            key = dotted(path)
            self.unresolved.add(key)
            self.issues.append(Issue(self._file, at.line, at.column, key, str(error)))
            return text
