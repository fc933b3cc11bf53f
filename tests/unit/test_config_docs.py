"""docs/configuration.md lists every key with its default, no other, and its error example is real."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from llm_proxy.config import ConfigErrors, load_config
from llm_proxy.config.schema import ConfigFile

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)


def _parts(kind: object) -> tuple[object, tuple[object, ...]]:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _parts(typing.get_args(kind)[0])
    return origin, typing.get_args(kind)


def _bare(kind: object) -> object:
    return _bare(typing.get_args(kind)[0]) if typing.get_origin(kind) is typing.Annotated else kind


def _default(field: FieldInfo) -> str:
    """As the page writes it."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return "—"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`"


def keys(model: type[BaseModel], under: str = "") -> Iterator[tuple[str, str]]:
    """Every key that may be written, dotted, with its default as the page writes it."""
    for name, field in model.model_fields.items():
        key = f"{under}{name}"
        kind = _bare(field.annotation)
        origin, args = _parts(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys(kind, f"{key}.")
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            inner = _bare(args[1])
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys(inner, f"{key}.NAME.")
            else:
                yield f"{key}.NAME", "—"
        elif origin is tuple and args and isinstance(args[0], type) and issubclass(args[0], BaseModel):
            if field.is_required():
                yield key, "*required*"
            yield from keys(args[0], f"{key}[].")
        else:
            yield key, _default(field)


DOCUMENTED = {row[0]: row for row in ROW.findall(PAGE)}


@pytest.mark.parametrize(("key", "default"), list(keys(ConfigFile)))
def test_every_key_is_documented_with_its_default(key: str, default: str) -> None:
    assert key in DOCUMENTED, f"docs/configuration.md has no row for `{key}`"
    assert DOCUMENTED[key][2] == default


def test_every_documented_key_exists() -> None:
    assert set(DOCUMENTED) == {key for key, _ in keys(ConfigFile)}


def test_the_error_example_is_what_is_really_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = PAGE.split("## Errors")[1].split("```yaml\n")[1].split("```")
    text, said = example[0], example[2]
    monkeypatch.chdir(tmp_path)
    path = Path("proxy.yaml")
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigErrors) as caught:
        load_config(path, {"OPENAI_API_KEY": "sk-1"})
    assert str(caught.value).strip() == said.strip()
