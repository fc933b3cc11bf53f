"""The starter proxy.yaml and policy.yaml that `llm-proxy init` writes, for a kind of agent or for any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from llm_proxy.identity.keyring import hash_key

NAMES = ("proxy.yaml", "policy.yaml")
_HASH_PLACE = "@AGENT_KEY_SHA256@"
_OPERATORS = """\
# People; never agents. They decide what the policy asks about: `llm-proxy approvals list`
operators:
"""


@dataclass(frozen=True, slots=True)
class Starter:
    """What the two files are about. `policy` is a file of this package; `approvers` make up `group`."""

    policy: str
    name: str
    team: str
    group: str = ""
    approvers: tuple[str, ...] = ()
    scopes: str = ""

    @property
    def agent(self) -> str:
        return f"{self.name}-bot"

    @property
    def key_variable(self) -> str:
        """The environment variable in which the agent's key is kept."""
        return f"{self.name.upper()}_BOT_KEY"


PLAIN = Starter("policy.yaml", "triage", "support")
STARTERS: Mapping[str, Starter] = {
    "support-desk": Starter(
        "policies/support-desk.yaml", "desk", "support", "support-leads", ("lead@example.com",)
    ),
    "coding-agent": Starter(
        "policies/coding-agent.yaml",
        "coding",
        "engineering",
        "maintainers",
        ("maintainer@example.com",),
        "\n    # What `scope:repos` in the policy stands for\n    scopes: {repos: [acme/web]}",
    ),
    # Payments take two people
    "finance": Starter(
        "policies/finance.yaml",
        "payables",
        "finance",
        "finance",
        ("first@example.com", "second@example.com"),
    ),
}
"""By the name that `init --policy` takes."""


class StarterExists(Exception):
    """Files that `init` would have to overwrite; it wrote none."""

    def __init__(self, existing: tuple[Path, ...]) -> None:
        self.existing = existing
        super().__init__(", ".join(map(str, existing)))


def starter_text(name: str, agent_key: str, starter: Starter = PLAIN, tokens: Sequence[str] = ()) -> str:
    """One of `NAMES`, with the hashes of `agent_key` and of the approvers' `tokens`; no key stands in it."""
    folder = files("llm_proxy.config.starter")
    if name == "policy.yaml":
        return folder.joinpath(starter.policy).read_text("utf-8")
    text = folder.joinpath(name).read_text("utf-8")
    text = text.replace("triage", starter.name).replace("TRIAGE", starter.name.upper())
    text = text.replace("@TEAM@", starter.team).replace("@SCOPES@", starter.scopes)
    text = text.replace("@OPERATORS@", _operators(starter, tokens))
    return text.replace(_HASH_PLACE, f"sha256:{hash_key(agent_key)}")


def _operators(starter: Starter, tokens: Sequence[str]) -> str:
    if not starter.approvers:
        return ""
    who = f"groups: [{starter.group}], roles: [approver]"
    lines = [
        f'  - {{id: {id_}, {who}, token: "sha256:{hash_key(token)}"}}\n'
        for id_, token in zip(starter.approvers, tokens, strict=True)
    ]
    return f"{_OPERATORS}{''.join(lines)}\n"


def write_starter(
    directory: Path, agent_key: str, starter: Starter = PLAIN, tokens: Sequence[str] = ()
) -> tuple[Path, ...]:
    """Writes both files and returns their paths. Makes the directory; overwrites nothing.

    `tokens` has one for each of the starter's approvers. Raises StarterExists before anything is written, or
    OSError where the directory can't be written to.
    """
    paths = tuple(directory / name for name in NAMES)
    existing = tuple(path for path in paths if path.exists() or path.is_symlink())
    if existing:
        raise StarterExists(existing)
    texts = [starter_text(path.name, agent_key, starter, tokens) for path in paths]
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, texts, strict=True):
        # "x" refuses a file that came into being since the check
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return paths
