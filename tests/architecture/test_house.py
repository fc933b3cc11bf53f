"""The house rules that no linter knows, read from the sources and the locks."""

from __future__ import annotations

import ast
import asyncio
import functools
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, BlockingError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("llm_proxy", "routing", "budgets")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
LITELLM_IMPORTER = "llm_proxy/upstream/litellm.py"


def sources(*folders: str) -> dict[str, ast.Module]:
    """Every module below the folders that holds any statement, by its path from the root."""
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    return {path: tree for path, tree in trees.items() if tree.body}


# Read at their first use: every process that collects tests loads this module.
@functools.cache
def project() -> dict[str, ast.Module]:
    return sources(*PACKAGES)


@functools.cache
def programs() -> dict[str, ast.Module]:
    return project() | sources("bench")


@functools.cache
def everything() -> dict[str, ast.Module]:
    return programs() | sources("tests")


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def imported(node: ast.AST) -> list[str]:
    """The absolute names that an import statement loads; empty for any other node."""
    match node:
        case ast.Import(names):
            return [alias.name for alias in names]
        case ast.ImportFrom(str() as module):
            return [module]
        case _:
            return []


def test_every_module_says_what_it_is() -> None:
    assert [path for path, tree in programs().items() if not ast.get_docstring(tree)] == []


def test_no_module_is_long() -> None:
    lengths = {path: (ROOT / path).read_text().count("\n") for path in programs()}
    assert {path: n for path, n in lengths.items() if n > MAX_MODULE_LINES} == {}


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the first statement to the last, the docstring left out."""
    first = function.body[bool(ast.get_docstring(function)) and len(function.body) > 1]
    return (function.end_lineno or first.lineno) - first.lineno + 1


def test_no_function_is_long() -> None:
    """Migrations are exempt: they list tables."""
    lengths = {
        f"{path}:{f.lineno} {f.name}": _body_lines(f)
        for path, tree in programs().items()
        if "/migrations/" not in path
        for f in functions(tree)
    }
    assert {where: n for where, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def _swallows_everything(node: ast.AST) -> bool:
    broad = {"Exception", "BaseException"}
    match node:
        case ast.ExceptHandler(type=kind, body=body):
            names = {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)} if kind else broad
            return bool(names & broad) and all(
                isinstance(s, ast.Pass | ast.Continue)
                or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
                for s in body
            )
        case ast.Call(func=ast.Name("suppress") | ast.Attribute(attr="suppress"), args=args):
            return any(isinstance(a, ast.Name) and a.id in broad for a in args)
        case _:
            return False


def test_no_exception_is_swallowed_unseen() -> None:
    found = [
        f"{path}:{getattr(node, 'lineno', 0)}"
        for path, tree in everything().items()
        for node in ast.walk(tree)
        if _swallows_everything(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "swallows"),
    [
        ("try:\n f()\nexcept Exception: pass", True),
        ("try:\n f()\nexcept (OSError, Exception): ...", True),
        ("try:\n f()\nexcept: pass", True),
        ("with contextlib.suppress(Exception): f()", True),
        ("try:\n f()\nexcept OSError: pass", False),
        ("try:\n f()\nexcept Exception as e: log(e)", False),
    ],
)
def test_what_counts_as_swallowing(code: str, *, swallows: bool) -> None:
    assert any(_swallows_everything(node) for node in ast.walk(ast.parse(code))) is swallows


def test_an_import_inside_a_function_says_why() -> None:
    """`# noqa: PLC0415` on the line, with the reason behind it or in a comment on the line above."""
    unexplained: list[str] = []
    for path, tree in project().items():
        lines = (ROOT / path).read_text().splitlines()
        statements = (n for f in functions(tree) for n in ast.walk(f) if isinstance(n, ast.stmt))
        inner = {n.lineno for n in statements if imported(n)}
        for line in sorted(inner):
            _, marker, reason = lines[line - 1].partition("noqa: PLC0415")
            above = lines[line - 2].lstrip().startswith("#") or "noqa: PLC0415" in lines[line - 2]
            if not marker or not (reason.strip() or above):
                unexplained.append(f"{path}:{line}")
    assert unexplained == []


def test_one_module_imports_litellm() -> None:
    importers = {
        path
        for path, tree in project().items()
        for node in ast.walk(tree)
        if any(name.split(".")[0] == "litellm" for name in imported(node))
    }
    assert importers <= {LITELLM_IMPORTER}


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("llm_proxy/chat", {"llm_proxy.chat", "msgspec"}),
        ("routing", {"routing"}),
    ],
)
def test_pure_rooms_import_nothing_that_acts(folder: str, allowed: set[str]) -> None:
    """They decide and describe: no file, socket, clock, environment or thread is theirs to touch."""
    inert = {
        "__future__",
        "collections",
        "dataclasses",
        "datetime",
        "email",
        "enum",
        "functools",
        "hashlib",
        "itertools",
    }
    inert |= {"math", "operator", "random", "re", "typing", "types", "json", "string", "heapq", "bisect"}
    foreign = {
        f"{path}: {name}"
        for path, tree in project().items()
        if path.startswith(f"{folder}/")
        for node in ast.walk(tree)
        for name in imported(node)
        if name.split(".")[0] not in inert and not any(f"{name}.".startswith(f"{a}.") for a in allowed)
    }
    assert foreign == set()


def _locked(name: str) -> dict[str, str]:
    """Pinned version by canonical name; fails on a line that is no pin, hash or marker."""
    pins: dict[str, str] = {}
    for block in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
        requirement, *hashes = block.split("--hash=")
        parsed = Requirement(requirement.strip())
        assert parsed.url is None, block
        (version,) = parsed.specifier
        assert version.operator == "==", block
        assert hashes, f"{name}: {parsed.name} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", h) for h in hashes), parsed.name
        pins[canonicalize_name(parsed.name)] = version.version
    return pins


def test_the_locks_hold_pins_and_hashes_and_no_address() -> None:
    runtime, dev = _locked("requirements.txt"), _locked("requirements-dev.txt")
    assert runtime.items() <= dev.items()
    for name in ("requirements.txt", "requirements-dev.txt"):
        assert "://" not in (ROOT / name).read_text()


def test_the_locks_satisfy_pyproject() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = pyproject["dependency-groups"]
    runtime = [*pyproject["project"]["dependencies"], *groups["build"]]
    dev = [*runtime, *groups["dev"], *groups["clients"]]
    for lock, wanted in (("requirements.txt", runtime), ("requirements-dev.txt", dev)):
        pins = _locked(lock)
        for requirement in map(Requirement, wanted):
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None, f"{lock} lacks {requirement}: run make lock"
            assert version in requirement.specifier, f"{lock} has {requirement.name} {version}: run make lock"


def test_the_loop_guard_sees_our_code_block(no_blocking: BlockBuster) -> None:
    code = "import time\n\ndef nap():\n    time.sleep(0)\n"
    scope: dict[str, object] = {}
    exec(compile(code, str(ROOT / "llm_proxy" / "nap.py"), "exec"), scope)
    nap = scope["nap"]
    assert callable(nap)

    async def call(function: Callable[[], object]) -> None:
        function()

    asyncio.run(call(lambda: time.sleep(0)))
    with pytest.raises(BlockingError):
        asyncio.run(call(nap))
