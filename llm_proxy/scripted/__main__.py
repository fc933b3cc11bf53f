"""`python -m llm_proxy.scripted --script F --port P`: a scripted model on a port, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from llm_proxy.scripted.script import ScriptError, load_script
from llm_proxy.scripted.server import Scripted, serve_scripted

DEMO = Path(__file__).with_name("demo.yaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 stopped by a signal, 2 a script or an address that can't be used."""
    parser = argparse.ArgumentParser(prog="python -m llm_proxy.scripted", description=__doc__)
    parser.add_argument("--script", type=Path, default=DEMO, help="YAML file (default: the demo's)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    options = parser.parse_args(argv)
    try:
        asyncio.run(serve_scripted(load_script(options.script), options.host, options.port, _say))
    except ScriptError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"can't serve on {options.host}:{options.port}: {error}; choose another --port\n")
        return 2
    return 0


def _say(scripted: Scripted) -> None:
    sys.stdout.write(f"base_url {scripted.base_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
