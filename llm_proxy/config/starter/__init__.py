"""The starter proxy.yaml and policy.yaml that `llm-proxy init` writes."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from llm_proxy.identity.keyring import hash_key

NAMES = ("proxy.yaml", "policy.yaml")
AGENT = "triage-bot"
_HASH_PLACE = "@AGENT_KEY_SHA256@"


class StarterExists(Exception):
    """Files that `init` would have to overwrite; it wrote none."""

    def __init__(self, existing: tuple[Path, ...]) -> None:
        self.existing = existing
        super().__init__(", ".join(map(str, existing)))


def starter_text(name: str, agent_key: str) -> str:
    """The starter called `name`, with the hash of `agent_key` in place; the key itself is in neither."""
    text = files("llm_proxy.config.starter").joinpath(name).read_text("utf-8")
    return text.replace(_HASH_PLACE, f"sha256:{hash_key(agent_key)}")


def write_starter(directory: Path, agent_key: str) -> tuple[Path, ...]:
    """Writes both files and returns their paths. Makes the directory; overwrites nothing.

    Raises StarterExists before anything is written, or OSError where the directory can't be written to.
    """
    paths = tuple(directory / name for name in NAMES)
    existing = tuple(path for path in paths if path.exists() or path.is_symlink())
    if existing:
        raise StarterExists(existing)
    directory.mkdir(parents=True, exist_ok=True)
    for path in paths:
        # "x" refuses a file that came into being since the check
        with path.open("x", encoding="utf-8") as file:
            file.write(starter_text(path.name, agent_key))
    return paths
