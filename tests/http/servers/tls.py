"""Certificates of the tests: an authority, a server of two names, a client."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from pathlib import Path


class Certificates:
    """An authority that only those trust who ask here; its server is ``localhost``, 127.0.0.1 and ``other.test``."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self._server = self._authority.issue_cert("localhost", "127.0.0.1", "other.test")
        self._client = self._authority.issue_cert("client@example.test")

    def server(self, *alpn: str) -> ssl.SSLContext:
        """Return the context of a server that speaks these protocols, by default HTTP/1.1."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.configure_cert(context)
        context.set_alpn_protocols(list(alpn) or ["http/1.1"])
        return context

    def demanding_server(self) -> ssl.SSLContext:
        """Return the context of a server that wants a certificate of its clients."""
        context = self.server()
        context.verify_mode = ssl.CERT_REQUIRED
        self._authority.configure_trust(context)
        return context

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that trusts the authority, and no other."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._authority.configure_trust(context)
        return context

    def write_authority(self, directory: Path) -> Path:
        path = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(path))
        return path

    def write_client(self, directory: Path) -> Path:
        """Write the client's key and certificate to one file."""
        path = directory / "client.pem"
        self._client.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path
