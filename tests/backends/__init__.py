"""Real trace backends and a real collector behind the proxy: groups of their own, outside of `make test`."""
