"""A bar under what pytest has written so far, which leaves no trace.

pytest counts the characters of its current line, to know when to break it and where the
percentage goes. So the bar is on the line below: it is written past pytest's counting, the
cursor goes back to where it was, and before pytest writes anything else the bar is erased.
While a test runs, pytest captures what is written to the terminal's own descriptor; the bar has
another, from before.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

WIDTH = 20  # of the bar itself
NARROW = 80  # columns of a terminal that does not tell
ERASE_BELOW = "\x1b[J"


class Bar:
    """Draws on the terminal of a reporter, if it has one.

    To be made while nothing is captured, as in ``pytest_sessionstart``.
    """

    def __init__(self, reporter: TerminalReporter | None) -> None:
        self._writer: Any = None
        self._terminal = -1
        self._drawn = False
        if (
            reporter is None
            or not reporter.isatty
            or os.environ.get("TERM", "dumb") == "dumb"
        ):
            return
        writer: Any = reporter._tw  # noqa: SLF001 (there is no other way to its column)
        try:
            self._terminal = os.dup(writer._file.fileno())  # noqa: SLF001 (past counting)
        except (OSError, ValueError, AttributeError):
            return
        self._writer = writer
        write = writer.write

        def erase_and_write(*args: Any, **options: Any) -> None:
            self.erase()
            write(*args, **options)

        writer.write = erase_and_write

    def close(self) -> None:
        """Take it away for ever."""
        self.erase()
        if self._writer is not None:
            self._writer = None
            os.close(self._terminal)

    @property
    def is_seen(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._writer is not None

    def draw(self, share: float, text: str) -> None:
        """Draw, or draw anew.

        Args:
            share: how much is done, from 0 to 1.
            text: what stands beside the bar; cut where the line ends.
        """
        if self._writer is None:
            return
        column = self._writer.width_of_current_line
        try:
            width = os.get_terminal_size(self._terminal).columns or NARROW
        except OSError:
            return  # it has gone
        if column >= width:
            return  # between two lines, where a terminal does not go back to
        done = round(WIDTH * min(max(share, 0.0), 1.0))
        line = f"[{'#' * done}{'.' * (WIDTH - done)}] {text}"
        line = line[: width - 1]
        # Below: a new line, which may scroll, cleared; back: up, and to the column.
        self._put(f"\n\r{ERASE_BELOW}{line}\x1b[A\x1b[{column + 1}G")
        self._drawn = True

    def erase(self) -> None:
        """Take it away."""
        if self._drawn:
            self._drawn = False
            self._put(ERASE_BELOW)

    def _put(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._terminal, data) :]
