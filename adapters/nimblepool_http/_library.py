"""A client library and its core: httpx with httpcore, or httpx2 with httpcore2.

The two pairs have the same interfaces and classes of their own, which they assert by identity. All that differs for
this adapter is which classes those are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import h2.exceptions
import h11
import trio

from nimblepool import CheckoutTimeout, PoolClosed, PoolOverloaded

from ._body import Body, SharedBody
from ._stream import NetworkStream, StreamErrors
from ._ticket import Escaped
from ._upgrade import UpgradedStream
from ._wire import Wire

if TYPE_CHECKING:
    from types import ModuleType

    from ._foreign import Foreign

_ERRORS = (
    "TimeoutException",
    "ConnectTimeout",
    "ReadTimeout",
    "WriteTimeout",
    "PoolTimeout",
    "NetworkError",
    "ConnectError",
    "ReadError",
    "WriteError",
    "ProxyError",
    "UnsupportedProtocol",
    "ProtocolError",
    "LocalProtocolError",
    "RemoteProtocolError",
)
"""The exceptions that have the same name in both halves of a pair."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """The classes of one pair. Made by `library_of` only."""

    client: Any
    """The module ``httpx`` or ``httpx2``."""
    core: Any
    """The module ``httpcore`` or ``httpcore2``."""
    core_name: str
    stream: type[NetworkStream]
    wire: type[Wire]
    body: type[Body]
    shared_body: type[SharedBody]
    upgraded: type[UpgradedStream]
    pool_timeout: type[Exception]
    """The client's ``PoolTimeout``, and a `nimblepool.CheckoutTimeout`."""
    overloaded: type[Exception]
    """The client's ``PoolTimeout``, and a `nimblepool.PoolOverloaded`."""
    closed: type[Exception]
    """The client's ``TransportError``, and a `nimblepool.PoolClosed`."""
    errors: dict[type[BaseException], type[Exception]]
    """The client's exceptions by those of its core."""
    core_errors: tuple[type[Exception], ...]
    """All that its core raises."""
    broken: tuple[type[Exception], ...]
    """What a connection raises that its server has closed."""

    def translated(self, error: BaseException) -> BaseException:
        """Return what the client's users know ``error`` by; itself, if it is none of the core's."""
        for kind in type(error).__mro__:
            if kind in self.errors:
                translation = self.errors[kind](str(error))
                translation.__cause__ = error
                return translation
        return error

    def connect_failed(self, cause: BaseException | None) -> BaseException:
        """Return what to raise for a request whose connection could not be opened."""
        if cause is None or isinstance(cause, trio.TooSlowError):
            error: BaseException = self.client.ConnectTimeout("the connection took too long to open")
            error.__cause__ = cause
            return error
        if isinstance(cause, Escaped) and cause.__cause__ is not None:
            return cause.__cause__
        return self.translated(cause)


def library_of(client: ModuleType, core: ModuleType) -> Library:
    """Return the classes of a pair, and those that are made of them."""
    known: Any = client
    basis: Any = core
    errors = _stream_errors(basis)
    return Library(
        client=client,
        core=core,
        core_name=core.__name__,
        stream=_subclass("NetworkStream", NetworkStream, basis.AsyncNetworkStream, errors=errors),
        wire=_subclass("HTTP2NetworkStream", Wire, basis.AsyncNetworkStream, errors=errors),
        body=_subclass("Body", Body, known.AsyncByteStream),
        shared_body=_subclass("SharedBody", SharedBody, known.AsyncByteStream),
        upgraded=_subclass("UpgradedStream", UpgradedStream, basis.AsyncNetworkStream),
        pool_timeout=_subclass("PoolTimeout", known.PoolTimeout, CheckoutTimeout),
        overloaded=_subclass("PoolTimeout", known.PoolTimeout, PoolOverloaded),
        closed=_subclass("TransportClosed", known.TransportError, PoolClosed),
        errors={
            **{getattr(core, name): getattr(client, name) for name in _ERRORS},
            # httpcore lets some of these through.
            h11.LocalProtocolError: known.LocalProtocolError,
            h11.RemoteProtocolError: known.RemoteProtocolError,
            h2.exceptions.ProtocolError: known.RemoteProtocolError,
        },
        core_errors=(*(getattr(core, name) for name in _ERRORS), basis.ConnectionNotAvailable),
        broken=(basis.RemoteProtocolError, basis.ReadError, basis.WriteError),
    )


def _subclass(name: str, *bases: type, **attributes: object) -> Foreign:
    return type(name, bases, {"__module__": __package__, **attributes})


def _stream_errors(core: Foreign) -> StreamErrors:
    return StreamErrors(
        read=core.ReadError,
        read_timeout=core.ReadTimeout,
        write=core.WriteError,
        write_timeout=core.WriteTimeout,
        connect=core.ConnectError,
        connect_timeout=core.ConnectTimeout,
        protocol=core.RemoteProtocolError,
    )
