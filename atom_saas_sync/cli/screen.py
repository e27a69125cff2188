"""The console of every screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from atom_saas_sync.characters import printable


class Screen(Console):
    """A console that shows text from strangers as text, whoever forgot to ask for it: every cell passes here."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render, and replace what is not printable in all that is no control sequence of rich's own."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, lines=True), style, control)
