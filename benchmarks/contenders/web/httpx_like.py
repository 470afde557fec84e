"""What httpx and httpx2 have in common: all that their users see."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Caller

from . import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask


@asynccontextmanager
async def _open_client(
    httpx: Any,  # noqa: ANN401 - one of two peers
    transport: Any | None,  # noqa: ANN401 - a class of this project, or none
    urls: list[str],
    connections: int | None = None,
    *,
    authority: str | None = None,
    http2: bool = False,
) -> AsyncGenerator[Ask]:
    options: dict[str, Any] = {"http2": http2, "verify": _trust(authority)}
    timeouts = {}
    if connections is not None:
        options["limits"] = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=PATIENCE
        )
        timeouts = {"timeout": PATIENCE}
    over = options if transport is None else {"transport": transport(**options)}
    async with httpx.AsyncClient(trust_env=False, **over, **timeouts) as client:
        turns = cycle(urls)
        protocol = "HTTP/2" if http2 else "HTTP/1.1"

        async def ask() -> None:
            response = await client.get(next(turns))
            if response.status_code != 204 or response.http_version != protocol:  # noqa: PLR2004 - the server's only answer
                raise RuntimeError(f"{response.http_version} {response.status_code}")

        yield ask


def _trust(authority: str | None) -> ssl.SSLContext:
    # A context that trusts the authorities of this system takes 20 ms to make, and plain HTTP needs none.
    return ssl.create_default_context(cafile=authority) if authority else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def make_caller(httpx: Any, transport: Any | None = None) -> Caller:  # noqa: ANN401 - a peer, and a class of ours
    """Return the caller that is ``httpx``, on trio, over ``transport`` instead of its own if there is one."""
    return Caller("trio", partial(_open_client, httpx, transport))
