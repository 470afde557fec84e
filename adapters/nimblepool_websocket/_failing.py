"""What a failure to open is worth: whether it may pass, and what of it may be shown."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import trio
from websockets.client import process_exception
from websockets.exceptions import ConnectionClosed, InvalidProxy

from nimblepool import Fatal

ProcessException: TypeAlias = Callable[[Exception], Exception | None]
"""Returns an exception if trying again is futile."""
LOST: Final = (trio.BrokenResourceError, ConnectionClosed)


def futile(error: Exception) -> Exception | None:
    """Return an exception if trying again is futile: the driver's `process_exception`, made for trio.

    The driver does not know trio's error of a broken connection, nor its own of one that is lost in the handshake, for
    network errors; and a certificate that is not valid it takes for one.
    """
    for seen in _chain(error):
        if isinstance(seen, ssl.SSLCertVerificationError):
            # Trio's own error, which it caused, has no text.
            return seen
    return None if isinstance(error, LOST) else process_exception(error)


def judged(error: Exception, process: ProcessException) -> Exception:
    """Return what a worker raises in place of the driver's ``error``."""
    try:
        verdict = process(error)
    except Exception as raised:  # noqa: BLE001 - the driver, too, takes it for a verdict
        verdict = raised
    if verdict is None:
        return _discreet(error)
    if verdict not in _chain(error):
        verdict.__cause__ = error
    return Fatal(_discreet(verdict))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its cause, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _discreet(error: Exception) -> Exception:
    if isinstance(error, InvalidProxy):
        # The environment's own text may hold a password.
        return ValueError(f"the proxy that the environment names is not valid: {error.msg}")
    return error
