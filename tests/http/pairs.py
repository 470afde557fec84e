"""The two HTTP clients that the adapter serves: every test that can runs with each."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from types import ModuleType

ClientName = Literal["httpx", "httpx2"]
# The two libraries have no types in common, and a test runs with either.
Client: TypeAlias = Any
Transport: TypeAlias = Any
NetworkStream: TypeAlias = Any
Option: TypeAlias = Any
# The default context takes 20 ms to make, and most tests speak no TLS.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TRANSPORTS: Final = {"httpx": "nimblepool_http", "httpx2": "nimblepool_http.httpx2"}


@dataclass(frozen=True)
class Pair:
    """A client library and the transport for it."""

    name: ClientName
    httpx: ModuleType
    transport: Transport

    def client(self, *, timeout: Option = 10.0, **options: Option) -> Client:
        """Return a client over a transport of these options."""
        return self.over(self.make(**options), timeout=timeout)

    def over(self, transport: Transport, **options: Option) -> Client:
        """Return a client over the transport."""
        return self.httpx.AsyncClient(transport=transport, **{"timeout": 10.0, **options})

    def make(self, *, verify: Option = _NO_TLS, **options: Option) -> Transport:
        """Return a `PooledTransport`."""
        return self.transport(verify=verify, **options)

    def timeout(self, **seconds: float | None) -> Option:
        """Return timeouts: those named, and 10 seconds for the others."""
        return self.httpx.Timeout(10.0, **seconds)

    def limits(
        self, connections: int | None = None, keepalive: int | None = None, expiry: float | None = 5.0
    ) -> Option:
        return self.httpx.Limits(
            max_connections=connections, max_keepalive_connections=keepalive, keepalive_expiry=expiry
        )


def pair_of(name: ClientName) -> Pair:
    return Pair(name, import_module(name), import_module(_TRANSPORTS[name]).PooledTransport)
