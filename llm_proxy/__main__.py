"""`llm-proxy`, the command."""

from __future__ import annotations

import gc


def main() -> None:
    """The entry point of the console script."""
    # Nothing of what loads is garbage, and looking for some takes a sixth of a command's start.
    gc.disable()
    from llm_proxy.cli.main import main as run  # noqa: PLC0415 (with the collector at rest)

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
