"""What is written down is true: commands exist, links lead somewhere, examples load, names have a line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from budgets.windows import WINDOWS
from llm_proxy.config.load import load_config
from llm_proxy.config.providers import NATIVE
from llm_proxy.errors import Kind
from llm_proxy.policy.load import load_policy
from llm_proxy.scripted.script import load_script
from llm_proxy.wire.dialects import DIALECTS
from routing.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")])


def _documented(name: str) -> bool:
    """Whether a guide has the name in backquotes: README or anything below docs."""
    guides = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return any(f"`{name}`" in guide.read_text() for guide in guides)


@pytest.mark.parametrize("code", list(Kind))
def test_every_error_code_is_documented(code: Kind) -> None:
    assert _documented(code), f"no guide has a line on the error `{code}`"


REGISTRIES: dict[str, Iterable[str]] = {
    "routing.strategies.STRATEGIES": STRATEGIES,
    "budgets.windows.WINDOWS": WINDOWS,
    "llm_proxy.config.providers.NATIVE": NATIVE,
    "llm_proxy.wire.dialects.DIALECTS": DIALECTS,
}


@pytest.mark.parametrize(
    ("registry", "name"),
    [(registry, name) for registry, names in REGISTRIES.items() for name in sorted(names)],
)
def test_every_registered_name_is_documented_and_tested(registry: str, name: str) -> None:
    assert _documented(name), f"{registry}: no guide has a line on `{name}`"
    tests = (path for path in (ROOT / "tests").rglob("test_*.py") if path.parent != Path(__file__).parent)
    assert any(re.search(rf"\b{name}\b", path.read_text()) for path in tests), (
        f"{registry}: no test of {name}"
    )


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_command_that_is_written_down_exists() -> None:
    writings = [*DOCUMENTS, ROOT / ".ci" / "run", ROOT / ".pre-commit-config.yaml"]
    named = {
        (path.name, target)
        for path in writings
        for target in re.findall(r"(?:^\s*|`)make ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert {(where, target) for where, target in named if target not in _targets()} == set()


def test_readme_names_the_two_commands_and_ci_runs_its_test_command() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
    steps = [
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert steps[-3:] == ["make test", "make test-browser", "make check"]
    assert "set -euo pipefail" in steps


def test_the_changelog_is_open() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "keepachangelog.com" in changelog
    assert re.search(r"^## \[Unreleased\]\n\n### \w+\n\n- ", changelog, re.MULTILINE)


def _slugs(markdown: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them: lower case, punctuation gone, spaces to hyphens."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_relative_link_is_dead(document: Path) -> None:
    text = document.read_text()
    dead: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in _slugs(target.read_text())):
            dead.append(link)
    assert dead == []


def _examples() -> list[tuple[str, str, str]]:
    """Fenced YAML that begins with `# file: NAME`: the document, NAME, and the text."""
    fence = re.compile(r"^```yaml\n(# file: (\S+)\n.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        (path.relative_to(ROOT).as_posix(), name, text)
        for path in DOCUMENTS
        for text, name in fence.findall(path.read_text())
    ]


def _environment(text: str) -> dict[str, str]:
    """A value for every `${VAR}` of an example, each its own."""
    return {name: f"example-{name.lower()}-0123456789abcdef" for name in re.findall(r"\$\{(\w+)", text)}


def test_every_example_file_in_the_documents_is_valid(tmp_path: Path) -> None:
    examples = _examples()
    assert {"proxy.yaml", "policy.yaml"} <= {name for _, name, _ in examples}
    for number, (document, name, text) in enumerate(examples):
        file = tmp_path / f"{number}-{Path(document).stem}" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        match Path(name).name:
            case "proxy.yaml":
                (file.parent / "policy.yaml").touch()
                assert load_config(file, _environment(text)).models
            case "policy.yaml":
                assert load_policy(file)
            case _:
                assert load_script(file)
