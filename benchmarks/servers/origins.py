"""The web server's process, seen from the one that asks, and the addresses it has."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.contender import load_peer
from benchmarks.measure import Dropped
from benchmarks.process import on_core, servers_core

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Origins:
    """URLs that the server answers, and the certificate of the authority that vouches for the secure one."""

    plain: list[str]
    secure: str
    authority: str


@contextmanager
def open_origins(count: int) -> Iterator[Origins]:
    """Run the server for a block, with so many plain origins.

    Raises:
        Dropped: it does not start, or what it needs is not installed.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        authority, identity = directory / "authority.pem", directory / "identity.pem"
        _make_certificates(authority, identity)
        command: list[str | Path] = [sys.executable, "-m", "benchmarks.servers.web", identity, identity, str(count)]
        with on_core(servers_core()):
            server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this interpreter, this package
        # Leaving closes its input, which ends it.
        stack.enter_context(server)
        assert server.stdout is not None  # noqa: S101 - PIPE was asked for
        ports = server.stdout.readline()
        if not ports:
            raise Dropped("the web server does not start")
        secure, *plain = json.loads(ports)
        yield Origins([f"http://127.0.0.1:{port}/" for port in plain], f"https://127.0.0.1:{secure}/", str(authority))


def _make_certificates(authority: Path, identity: Path) -> None:
    try:
        issuer = load_peer("trustme").CA()
    except ImportError as error:
        raise Dropped(f"not installed ({error})") from error
    issuer.cert_pem.write_to_path(str(authority))
    issuer.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(identity))
