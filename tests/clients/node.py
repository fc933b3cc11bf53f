"""Node with the packages of the Vercel AI SDK, installed outside of the repository."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "vercel"
FILES = ("package.json", "package-lock.json", "agent.mjs")
LEAST_NODE = 18


@functools.cache
def missing() -> str:
    """Why there is no Node to run this on; empty where there is."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return "node and npm are not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < LEAST_NODE:
        return f"node {version} is older than {LEAST_NODE}"
    return ""


def installed() -> Path:
    """A folder with the agent and its packages: made once for each lock, and then used by every run."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"llm-proxy-vercel-{os.getuid()}-{digest}"
    if folder.exists():
        assert folder.stat().st_uid == os.getuid(), f"{folder} is someone else's"
        return folder
    made = Path(tempfile.mkdtemp(prefix="llm-proxy-vercel-"))
    for name in FILES:
        shutil.copy(HERE / name, made)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"npm ci failed:\n{done.stdout}{done.stderr}"
    try:
        made.rename(folder)
    except OSError:  # another run was quicker
        shutil.rmtree(made)
    return folder
