"""YAML files whose every complaint says file, line, column, key and what to do."""

from llm_proxy.yamlpos.document import Document, DocumentErrors, Issue, KeyPath, Position, Yaml, dotted
from llm_proxy.yamlpos.loader import ScalarHook, load_yaml
from llm_proxy.yamlpos.validation import hint, issues_from_validation

__all__ = [
    "Document",
    "DocumentErrors",
    "Issue",
    "KeyPath",
    "Position",
    "ScalarHook",
    "Yaml",
    "dotted",
    "hint",
    "issues_from_validation",
    "load_yaml",
]
