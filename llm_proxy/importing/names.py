"""Names and secrets in the written file: valid ids that stand once, and placeholders for what is secret."""

from __future__ import annotations

import re

from llm_proxy.importing.source import Field

ENVIRON = "os.environ/"
PLACEHOLDER = "LLM_PROXY_IMPORTED_KEY_"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FOREIGN = re.compile(r"[^A-Za-z0-9._:@/+-]+")
_LONGEST = 128
_LONGEST_MODEL = 256


def literal(text: str) -> str:
    """`text` so that the config reads it back as it is: `$` begins a reference there."""
    return text.replace("$", "$$")


def is_plain(name: str) -> bool:
    """Whether a model can have this name."""
    return bool(name.strip()) and len(name) <= _LONGEST_MODEL


def variable_of(text: str) -> str | None:
    """NAME, where `text` is `os.environ/NAME` and an environment variable can be called that."""
    name = text.removeprefix(ENVIRON)
    return name if name != text and _VARIABLE.fullmatch(name) else None


def carried(text: str) -> str:
    """Text that is no secret: from the environment if the source has it from there, else as it is."""
    variable = variable_of(text)
    return f"${{{variable}}}" if variable else literal(text)


class Secrets:
    """Gives every secret that stands in the source a variable to take its place."""

    def __init__(self) -> None:
        self._variables: dict[str, str] = {}

    def reference(self, field: Field) -> tuple[str, str]:
        """What to write for the secret in `field`, and what to tell of it; empty if nothing needs telling."""
        text = field.text or ""
        variable = variable_of(text)
        if variable is None:
            variable = self._variables.setdefault(text, f"{PLACEHOLDER}{len(self._variables) + 1}")
            return f"${{{variable}}}", f"the secret itself is not copied: set {variable} to it"
        return f"${{{variable}}}", ""


class Ids:
    """Hands out ids: letters, digits and ._:@/+- only, none of them twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, wanted: str) -> str:
        base = valid(wanted)
        found, n = base, 1
        while found in self._taken:
            n += 1
            end = f"-{n}"
            found = base[: _LONGEST - len(end)] + end
        self._taken.add(found)
        return found


def valid(wanted: str) -> str:
    """The nearest text to `wanted` that is a valid id."""
    tidy = _FOREIGN.sub("-", wanted.replace("*", "any")).lstrip("._:@/+-")
    return tidy[:_LONGEST] or "unnamed"
