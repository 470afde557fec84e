"""The long run: random clients, owners and faults against real pools on a mock clock, for a million operations.

Each round opens one pool with options, a worker and a weather of faults drawn from the seed, lets clients loose on it,
and then demands: books that balance, every lease returned, the full capacity, each resource terminated exactly once.
A round depends on nothing but the seed and its number, so that a violation comes again with ``--seed S --round K``.

Run it with ``python -m benchmarks.soak``; begin to read at ``round.py``.
"""

from .command import main

__all__ = ["main"]
