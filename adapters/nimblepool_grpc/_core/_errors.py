"""What the core raises of its own: nothing of cygrpc's errors escapes from it."""

from typing import final

__all__ = ["CallEnded", "ChannelClosed"]


@final
class CallEnded(Exception):
    """The RPC has ended, so no message can be sent on it any more; `CoreCall.status` tells why."""


@final
class ChannelClosed(Exception):
    """The channel was closed before: no call can begin on it."""
