"""The entry point of ``python -m benchmarks``; the soak has its own, ``python -m benchmarks soak``."""

import sys


def main() -> int:
    """Run the benchmarks, or the soak."""
    # Each is imported only when it is asked for: they run in different environments.
    if sys.argv[1:2] == ["soak"]:
        from benchmarks import soak  # noqa: PLC0415 - see above

        return soak.main(sys.argv[2:])
    from benchmarks import command  # noqa: PLC0415 - see above

    return command.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
