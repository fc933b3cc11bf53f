"""A bar down the left of what belongs together, however its lines wrap; no blanks at the ends of lines."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style


class Gutter:
    """`content`, with `bar` before each of its lines."""

    def __init__(self, content: RenderableType, bar: str = "", style: str = "dim") -> None:
        self._content = content
        self._bar = bar
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update_width(max(20, options.max_width - len(self._bar)))
        bar = Segment(self._bar, console.get_style(self._style))
        for line in console.render_lines(self._content, inner, pad=False):
            words = _trimmed(line)
            yield bar if words else Segment(self._bar.rstrip(), bar.style)
            yield from words
            yield Segment.line()


def _trimmed(line: Iterable[Segment]) -> list[Segment]:
    """The line without the blanks at its end, which would only be in the way of who copies it."""
    kept = list(line)
    while kept and not kept[-1].text.strip() and not _visible(kept[-1].style):
        kept.pop()
    if kept and not _visible(kept[-1].style):
        last = kept[-1]
        kept[-1] = Segment(last.text.rstrip(), last.style, last.control)
    return kept


def _visible(style: Style | None) -> bool:
    return style is not None and (style.bgcolor is not None or bool(style.underline))
