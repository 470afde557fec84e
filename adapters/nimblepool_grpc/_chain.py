"""Interceptors at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc.aio import ClientCallDetails, Metadata

from ._terms import Terms, terms_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._interceptors import Intercept
    from ._method import Method


async def intercepted(
    intercepts: tuple[Intercept, ...],
    make: Callable[[Any, Any], Any],
    adapt: Callable[[Any, Any], Any],
    details: ClientCallDetails,
    request: Any,  # noqa: ANN401 - a message, or an iterator of them
) -> Any:  # noqa: ANN401 - a call
    """Let the interceptors have their say, and return the call that the outermost one answers with.

    Args:
        intercepts: the interceptors' methods, the outermost first.
        make: makes the call behind them, of details and request; it begins when somebody uses it.
        adapt: makes a call of what an interceptor answered and of the call that it was given, if it asked for one.
        details: what the client asks for.
        request: the message, or the iterator of messages.
    """
    if not intercepts:
        return make(details, request)
    first, *others = intercepts
    given = None

    async def continuation(details: ClientCallDetails, request: Any) -> Any:  # noqa: ANN401
        nonlocal given
        given = await intercepted(tuple(others), make, adapt, details, request)
        return given

    return adapt(await first(continuation, details, request), given)


def details_of(method: Method[Any, Any], terms: Terms) -> ClientCallDetails:
    """Return what interceptors get to see, with metadata that they may add to."""
    name: Any = method.name  # bytes, as grpc.aio has it, whatever its types say
    return ClientCallDetails(name, terms.timeout, Metadata(*terms.metadata), terms.credentials, terms.wait_for_ready)


def terms_of(details: ClientCallDetails) -> Terms:
    """Return what interceptors have made of the terms."""
    return terms_from(details.timeout, details.metadata, details.credentials, details.wait_for_ready)
