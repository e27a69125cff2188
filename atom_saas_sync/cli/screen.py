"""The console of every screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from atom_saas_sync.characters import printable


class Screen(Console):
    """A console that makes untrusted text safe in every cell, even if a caller forgot to."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render, and replace unprintable characters except in rich's own control sequences."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, lines=True), style, control)
