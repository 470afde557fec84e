"""The errors that the adapter raises by itself; what a driver raises comes out as it is."""

from __future__ import annotations

from nimblepool import PoolError


class TransactionLost(PoolError):
    """The transaction is gone though its block goes on: the database rolled it back, or a statement ended it.

    An interrupted statement can take its whole transaction with it. Leave the block and run it again; if it was a
    statement of the block that committed, take that statement out.
    """


class CommitUnknown(PoolError):
    """The COMMIT got no answer: it may or may not have happened. Ask the data.

    Its deadline ran out, or the connection was lost while it was under way.
    """


class Unsupported(PoolError, NotImplementedError):
    """This database, or its driver, cannot do what was asked; the text names both."""
