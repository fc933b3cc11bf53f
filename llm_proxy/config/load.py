"""From a path to a checked `Config`, or to every reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from llm_proxy.config.check import Entries, errors_between
from llm_proxy.config.expand import Expander
from llm_proxy.config.listed import PriceOf
from llm_proxy.config.places import LoadContext
from llm_proxy.config.schema import Config, ConfigFile
from llm_proxy.config.warn import warnings
from llm_proxy.yamlpos import Document, DocumentErrors, Issue, Yaml, issues_from_validation, load_yaml

DEFAULT_NAME = "proxy.yaml"
ENV_VAR = "LLM_PROXY_CONFIG"


class ConfigErrors(DocumentErrors):
    """A config that can't be used; `issues` holds everything found, in file order."""


def find_config(option: Path | None, environ: Mapping[str, str]) -> Path:
    """The config file: the option, else `$LLM_PROXY_CONFIG`, else `./proxy.yaml`. Raises ConfigErrors."""
    named = environ.get(ENV_VAR, "")
    path = option or Path(named or DEFAULT_NAME)
    if path.is_file():
        return path
    if path.is_dir():
        raise _unreadable(path, "is a directory: name the config file in it")
    source = "--config names it" if option else f"${ENV_VAR} names it" if named else "no --config was given"
    raise _unreadable(
        path, f"does not exist ({source}): run `llm-proxy init` to write a starter, or correct the path"
    )


def load_config(path: Path, environ: Mapping[str, str], price_of: PriceOf | None = None) -> Config:
    """The config at `path`, with `environ` filled in and all cross-checks done.

    `price_of` gives the known price of (provider, model) besides the file's own; without it missing prices
    go unmentioned. Raises ConfigErrors with every issue.
    """
    raw = _bytes(path)
    document, expander = _document(raw, path, environ)
    context = LoadContext(path.parent)
    config, issues = _validated(document, context)
    entries = Entries.of(config) if config else Entries.salvaged(_mapping(document), context)
    issues = [*issues, *errors_between(entries, document)]
    issues = [issue for issue in issues if issue.key not in expander.unresolved]
    if issues or expander.issues or config is None:
        raise ConfigErrors(_sorted([*expander.issues, *issues]))
    return Config.model_construct(
        **{name: getattr(config, name) for name in ConfigFile.model_fields},
        path=path,
        config_sha256=hashlib.sha256(raw).hexdigest(),
        warnings=_sorted(warnings(config, document, price_of)),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, f"can't be read: {error.strerror or type(error).__name__}") from error


def _document(raw: bytes, path: Path, environ: Mapping[str, str]) -> tuple[Document, Expander]:
    expander = Expander(str(path), environ)
    try:
        text = raw.decode("utf-8-sig")
        document = load_yaml(text, str(path), expander)
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except DocumentErrors as error:
        raise ConfigErrors(_sorted([*error.issues, *expander.issues])) from error
    if not isinstance(document.data, dict):
        raise ConfigErrors([document.issue((), "must be a mapping of keys, such as models: and agents:")])
    return document, expander


def _validated(document: Document, context: LoadContext) -> tuple[ConfigFile | None, tuple[Issue, ...]]:
    try:
        return ConfigFile.model_validate(document.data, context=context), ()
    except ValidationError as error:
        return None, issues_from_validation(error, document, ConfigFile)


def _mapping(document: Document) -> Mapping[str, Yaml]:
    return document.data if isinstance(document.data, dict) else {}


def _unreadable(path: Path, message: str) -> ConfigErrors:
    return ConfigErrors([Issue(str(path), 1, 1, "", message)])


def _sorted(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    return tuple(sorted(set(issues), key=lambda issue: (issue.line, issue.column, issue.key, issue.message)))
