"""Runs tests on psycopg's pure Python implementation: ``python -m tests.database.postgres.pure_python ARGUMENT...``.

The arguments are pytest's. That implementation looks for libpq with the help of a compiler or linker, and finds what
the machine has, if anything; here it gets the one that the servers came with.
"""

import ctypes.util
import os
import sys
from unittest import mock

import pytest

from tests.database.postgres.server import NEWEST, PROGRAMS

LIBPQ = PROGRAMS[NEWEST] / "lib" / "libpq.so.5"


def main() -> int:
    """Run pytest; return its exit status."""
    find = ctypes.util.find_library
    os.environ["PSYCOPG_IMPL"] = "python"
    with mock.patch("ctypes.util.find_library", lambda name: str(LIBPQ) if name == "pq" else find(name)):
        from psycopg import pq  # noqa: PLC0415 - it is chosen by the import
    assert pq.__impl__ == "python"
    return pytest.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
