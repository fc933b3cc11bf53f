"""`llm-proxy`, the command."""

from __future__ import annotations

from llm_proxy.cli.main import main

if __name__ == "__main__":
    main()
