"""Where a request goes: the key of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._foreign import Foreign

from typing import Final, NamedTuple

DEFAULT_PORTS: Final = {b"http": 80, b"https": 443, b"ws": 80, b"wss": 443}
"""The schemes that are supported."""
TLS_SCHEMES: Final = frozenset({b"https", b"wss"})


class Origin(NamedTuple):
    """One server as its clients see it. A connection belongs to one origin."""

    scheme: bytes
    host: bytes
    port: int
    server_name: str | None = None
    """What to ask for and verify in the TLS handshake in place of the host (the extension ``sni_hostname``)."""

    @property
    def is_secure(self) -> bool:
        return self.scheme in TLS_SCHEMES

    @property
    def address(self) -> str:
        return self.host.decode("ascii")

    @property
    def expected_name(self) -> str:
        """The name that the certificate must have."""
        return self.server_name or self.address

    def __str__(self) -> str:
        host = f"[{self.address}]" if b":" in self.host else self.address
        alias = "" if self.server_name is None else f" as {self.server_name}"
        return f"{self.scheme.decode('ascii')}://{host}:{self.port}{alias}"

    def __repr__(self) -> str:
        return str(self)


def origin_of(url: Foreign, server_name: str | None) -> Origin:
    """Return where a request for ``url`` goes.

    Raises:
        ValueError: with that scheme, nowhere.
    """
    scheme = url.raw_scheme
    port = url.port or DEFAULT_PORTS.get(scheme)
    if scheme not in DEFAULT_PORTS or port is None:
        if not scheme:
            raise ValueError("Request URL is missing an 'http://' or 'https://' protocol.")
        raise ValueError(f"Request URL has an unsupported protocol '{scheme.decode('ascii')}://'.")
    return Origin(scheme, url.raw_host, port, server_name)
