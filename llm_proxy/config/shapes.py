"""What the schema is built from: strict sections, tables, lists, text and numbers, with plain errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

K = TypeVar("K")
T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")


class Section(BaseModel):
    """A mapping with fixed keys. An absent section, or a key left empty, takes the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if data is None:
            return {}
        if isinstance(data, BaseModel):
            return data
        if not isinstance(data, dict):
            known = ", ".join(field.alias or name for name, field in cls.model_fields.items())
            raise ValueError(f"must be a mapping of keys; known here: {known}")  # noqa: TRY004 (pydantic's way)
        entries = cast("dict[str, object]", data)
        return {key: v for key, v in entries.items() if v is not None or key not in cls.model_fields}


def _items(value: object) -> object:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list: put it in [brackets]")  # noqa: TRY004 (pydantic reports ValueError)
    return cast("list[object] | tuple[object, ...]", value)


def _table(value: object) -> object:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of names to entries")  # noqa: TRY004 (pydantic reports ValueError)
    return cast("dict[str, object]", value)


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 (pydantic reports ValueError)
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 (pydantic reports ValueError)
    return value


def is_name(value: str) -> bool:
    """Whether it may be the id of an agent, target, budget or operator."""
    return _NAME.fullmatch(value) is not None


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError("must be 1 to 128 letters, digits or ._:@/+- and start with a letter or digit")
    return value


def _entry_name(value: str) -> str:
    if not value.strip():
        raise ValueError("has no name: give the entry one")
    return value


def _micro(value: Decimal) -> Decimal:
    if value != value.quantize(Decimal("0.000001")):
        raise ValueError("must have at most 6 decimals: a micro-dollar is the smallest amount")
    return value


Items: TypeAlias = Annotated[tuple[T, ...], BeforeValidator(_items)]
Table: TypeAlias = Annotated[Mapping[K, T], BeforeValidator(_table)]
Text: TypeAlias = Annotated[str, BeforeValidator(_text)]
Name: TypeAlias = Annotated[Text, AfterValidator(_name)]
EntryName: TypeAlias = Annotated[str, AfterValidator(_entry_name)]
Int: TypeAlias = Annotated[int, BeforeValidator(_number)]
Float: TypeAlias = Annotated[float, BeforeValidator(_number)]
Usd: TypeAlias = Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=10**9), AfterValidator(_micro)]
"""Down to the micro-dollar."""
Rate: TypeAlias = Annotated[Float, Field(ge=0)]
Tokens: TypeAlias = Annotated[Int, Field(ge=1)]
Seconds: TypeAlias = Annotated[Float, Field(gt=0, le=86_400)]
Maximum: TypeAlias = Annotated[Int, Field(ge=0, le=2**62)]
