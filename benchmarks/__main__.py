"""The entry point of `make bench` and `make soak`."""

import sys

from benchmarks import soak


def main() -> int:
    """Run the soak, or say that there is no benchmark yet."""
    if sys.argv[1:2] == ["soak"]:
        return soak.main(sys.argv[2:])
    print("No benchmark has been written yet, so nothing was measured. See benchmarks/README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
