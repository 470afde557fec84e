"""The log that the pools write."""

from __future__ import annotations

import logging
from collections import Counter


class Listener(logging.Handler):
    """Formats what the pool logs, as a log would, and notices what must never be there."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.violations: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take in one record."""
        record.getMessage()
        self.lines[record.levelname] += 1
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, AssertionError):
            self.violations.append(error)
