"""What the connections to one file have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import trio

from ._writer_queue import WriterQueue

if TYPE_CHECKING:
    from ._options import SQLiteOptions


@final
@dataclass(frozen=True, slots=True, eq=False)
class SQLiteFile:
    """One database file as one pool sees it.

    Attributes:
        path: absolute, or ``":memory:"``.
        options: how its connections are set up.
        writers: whose turn it is to write.
        opening: held by the connection that is being set up. Changing the journal mode needs the file to itself, and
            several connections opened at once would keep each other from it for ever.
    """

    path: str
    options: SQLiteOptions
    writers: WriterQueue = field(default_factory=WriterQueue)
    opening: trio.Lock = field(default_factory=trio.Lock)
