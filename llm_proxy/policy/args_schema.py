"""JSON Schemas of tool arguments: draft 2020-12, linear-time patterns, formats asserted, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

import jsonschema_rs

from llm_proxy.policy.canonical import Json
from llm_proxy.yamlpos import KeyPath, hint

_CORE = "$id $schema $ref $anchor $dynamicRef $dynamicAnchor $vocabulary $comment $defs definitions"
_APPLICATORS = (
    "prefixItems items contains additionalProperties properties patternProperties dependentSchemas "
    "dependencies propertyNames if then else allOf anyOf oneOf not unevaluatedItems unevaluatedProperties"
)
_ASSERTIONS = (
    "type const enum multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength "
    "pattern maxItems minItems uniqueItems maxContains minContains maxProperties minProperties required "
    "dependentRequired format contentEncoding contentMediaType contentSchema"
)
_ANNOTATIONS = "title description default deprecated readOnly writeOnly examples nullable"
_KEYWORDS = sorted(f"{_CORE} {_APPLICATORS} {_ASSERTIONS} {_ANNOTATIONS}".split())
_NAMED = {"$defs", "definitions", "properties", "patternProperties", "dependentSchemas"}
_DATA = {"const", "enum", "default", "examples", "required", "type", "dependentRequired", "$vocabulary"}


class SchemaProblem(Exception):
    """A schema that can't be used. `path` leads to the place within it."""

    def __init__(self, path: KeyPath, message: str) -> None:
        self.path = path
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class ArgsSchema:
    """A compiled schema."""

    validator: jsonschema_rs.Draft202012Validator
    names: frozenset[str]
    """Every property that the schema names: what may be said of arguments without quoting them."""

    def complaint(self, arguments: dict[str, Json]) -> str:
        """What is wrong, and where; empty where nothing is. It quotes the schema, and nothing else."""
        if self.validator.is_valid(arguments):
            return ""
        error = next(iter(self.validator.iter_errors(arguments)))
        parts = (part if isinstance(part, int) or part in self.names else "*" for part in error.instance_path)
        at = "/".join(map(str, parts))
        message = _unquoting([str(part) for part in error.schema_path]) or error.message
        return f"at /{at}: {message}"[:500]


def compile_schema(schema: dict[str, Json]) -> ArgsSchema:
    """Raises SchemaProblem; an outside `$ref` is one, and is never followed."""
    for path, value in _references(schema, ()):
        if not value.startswith("#"):
            raise SchemaProblem(path, "refers outside the schema: copy it into $defs and use '#/$defs/…'")
    try:
        validator = jsonschema_rs.Draft202012Validator(
            schema,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=True,
            retriever=_retrieve_nothing,
            mask="the value",
        )
    except jsonschema_rs.ValidationError as error:
        raise SchemaProblem(
            tuple(error.instance_path), f"is no valid JSON Schema: {error.message}"
        ) from error
    return ArgsSchema(validator, frozenset(_properties(schema)))


def doubtful_keywords(schema: Json, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Keywords that look misspelt. JSON Schema ignores what it doesn't know, and with it a limit."""
    for at, inner in _schemas(schema, path):
        for keyword in inner:
            if keyword not in _KEYWORDS and "did you mean" in (tip := hint(keyword, _KEYWORDS)):
                yield (*at, keyword), f"is no JSON Schema keyword and has no effect{tip}"


def _schemas(schema: Json, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Json]]]:
    """The schema and every one inside it, each with its path."""
    if isinstance(schema, list):
        for n, item in enumerate(schema):
            yield from _schemas(item, (*path, n))
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword, value in schema.items():
        if keyword in _NAMED and isinstance(value, dict):
            for name, inner in value.items():
                yield from _schemas(inner, (*path, keyword, name))
        elif keyword not in _DATA:
            yield from _schemas(value, (*path, keyword))


def _unquoting(schema_path: Sequence[str]) -> str:
    """What to say where the library's own words would quote the name of an argument."""
    if "propertyNames" in schema_path:
        return "the name of an argument doesn't fit"
    if schema_path[-1:] in (["additionalProperties"], ["unevaluatedProperties"]):
        return "an argument that the schema doesn't know"
    return ""


def _properties(schema: Json) -> Iterator[str]:
    for _, inner in _schemas(schema, ()):
        named = inner.get("properties")
        if isinstance(named, dict):
            yield from named


def _references(value: Json, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    for at, schema in _schemas(value, path):
        for keyword in ("$ref", "$dynamicRef"):
            reference = schema.get(keyword)
            if isinstance(reference, str):
                yield (*at, keyword), reference


def _retrieve_nothing(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside the schema")


def property_names(schema: dict[str, Json] | None) -> frozenset[str] | None:
    """The only names that the schema lets stand in the arguments; None where others may too."""
    if schema is None or schema.get("additionalProperties") is not False or "patternProperties" in schema:
        return None
    properties = schema.get("properties", {})
    return frozenset(cast("dict[str, Json]", properties)) if isinstance(properties, dict) else frozenset()
