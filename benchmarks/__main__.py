"""The entry point of `make bench` and `make soak`."""

import sys


def main() -> None:
    """Say that there is nothing to run."""
    kind = "long run" if "soak" in sys.argv[1:] else "benchmark"
    print(f"No {kind} has been written yet, so nothing was measured. See benchmarks/README.md.")


if __name__ == "__main__":
    main()
