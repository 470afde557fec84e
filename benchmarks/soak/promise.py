"""What a pool promises."""


class ViolationError(AssertionError):
    """The pool broke a promise."""


def require(holds: object, promise: str) -> None:
    """Raise `ViolationError` naming ``promise`` unless it ``holds``."""
    if not holds:
        raise ViolationError(promise)
