"""The console's script and style, and the plots' library out of its package, at addresses of their hash."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

_OURS = Path(__file__).with_name("static")
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_PLOTS = "plotly.min.js"
_MAPS_STYLE = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')
"""The library puts a style element, for its maps, into each page that has no element of this id."""
PREFIX = "/console/static"


@dataclass(frozen=True)
class Asset:
    """A file; read at its first use, and kept."""

    name: str
    path: Path

    @property
    def media_type(self) -> str:
        return _TYPES[self.path.suffix]

    @cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def packed(self) -> bytes:
        return gzip.compress(self.content, 6, mtime=0)

    @cached_property
    def tag(self) -> str:
        """The beginning of its SHA-256: another content has another address."""
        return hashlib.sha256(self.content).hexdigest()[:16]

    @property
    def address(self) -> str:
        return f"{PREFIX}/{self.tag}/{self.name}"


class Assets:
    """All that pages may load."""

    def __init__(self) -> None:
        files = [*sorted(_OURS.iterdir()), _plots()]
        self._assets = {path.name: Asset(path.name, path) for path in files if path.suffix in _TYPES}

    def address(self, name: str) -> str:
        return self._assets[name].address

    @cached_property
    def plots_id(self) -> str:
        """What the element that loads the plots' library is called, so that it puts no style of maps in."""
        found = _MAPS_STYLE.search(self._assets[_PLOTS].content)
        return found[1].decode() if found else "plots"

    def find(self, tag: str, name: str) -> Asset | None:
        """None for what isn't served, or is no more what that address was."""
        asset = self._assets.get(name)
        return asset if asset is not None and asset.tag == tag else None


def _plots() -> Path:
    """The library's one script, found without importing the package, which takes long."""
    spec = find_spec("plotly")
    assert spec is not None, "plotly is among the requirements"
    assert spec.origin is not None
    return Path(spec.origin).parent / "package_data" / _PLOTS
