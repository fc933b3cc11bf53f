"""Imports of LiteLLM configs for tests: with the real price table, and loaded with our own loader."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from llm_proxy.config import Config, load_config
from llm_proxy.importing.catalogue import Catalogue, read_catalogue
from llm_proxy.importing.keys import read_keys
from llm_proxy.importing.report import Row
from llm_proxy.importing.translate import Translation, translate
from llm_proxy.yamlpos import load_yaml

CONFIGS = Path(__file__).parent / "litellm_configs"


@functools.cache
def catalogue() -> Catalogue:
    return read_catalogue()


def imported(text: str, keys: str | None = None, known: Catalogue | None = None) -> Translation:
    answer = read_keys(keys, "keys.json") if keys is not None else None
    return translate(load_yaml(text, "config.yaml"), answer, known or catalogue())


def loaded(translation: Translation, folder: Path) -> Config:
    """The written file, with a value for each of its variables that does for addresses too."""
    path = folder / "proxy.yaml"
    path.write_text(translation.text, "utf-8")
    names = set(re.findall(r"\$\{(\w+)\}", translation.text))
    return load_config(path, {name: f"http://{name.lower().replace('_', '-')}.example/v1" for name in names})


def row(translation: Translation, field: str) -> Row:
    """The one row of a field."""
    (found,) = [row for row in translation.rows if row.field == field]
    return found


def verdict(translation: Translation, field: str) -> tuple[str, str]:
    found = row(translation, field)
    return found.verdict.value, found.became
