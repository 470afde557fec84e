"""Who gets what the server sends without being asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

from nimblepool import PoolClosed

if TYPE_CHECKING:
    import trio
    from websockets.typing import Data

    from ._subscription import Subscription

logger = logging.getLogger("nimblepool")


@final
class Hub:
    """The subscribers of all shared sockets of one URI."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}

    def join(self, subscription: Subscription) -> None:
        """Let ``subscription`` have every message from now on."""
        self._subscriptions[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        """End ``subscription``."""
        del self._subscriptions[subscription]
        subscription.end(StopAsyncIteration())

    async def publish(self, message: Data, over: trio.Event) -> None:
        """Hand ``message`` to every subscriber that wants it; one that lets the server wait makes this wait.

        Args:
            message: what came.
            over: set once nothing more can come from the same socket; then, and after `nudge`, nobody makes this wait.
        """
        for subscription in list(self._subscriptions):
            if self._wanted(subscription, message):
                await subscription.put(message, over)

    def nudge(self) -> None:
        """Let everybody who waits for room look again: a socket's ``over`` was set."""
        for subscription in self._subscriptions:
            subscription.nudge()

    def socket_closed(self) -> None:
        """Hear that a shared socket is no more."""
        for subscription in self._subscriptions:
            subscription.losses += 1

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in list(self._subscriptions):
            subscription.end(PoolClosed("the sockets are closed: no more messages come"))

    def _wanted(self, subscription: Subscription, message: Data) -> bool:
        try:
            return subscription.wants(message)
        except BaseException as error:
            # Also what is meant to end the program: it comes out where the messages are read.
            logger.exception("the `match` of a subscription failed; the subscription ends")
            subscription.end(error)
            return False
