"""Who gets what the server sends without being asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

from nimblepool import PoolClosed

if TYPE_CHECKING:
    from websockets.typing import Data

    from ._subscription import Subscription

logger = logging.getLogger("nimblepool")


@final
class Hub:
    """The subscribers of all shared sockets of one URI."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is no subscriber."""
        return not self._subscriptions

    def join(self, subscription: Subscription) -> None:
        """Let ``subscription`` have every message from now on."""
        self._subscriptions[subscription] = None

    def leave(self, subscription: Subscription) -> None:
        """End ``subscription``."""
        del self._subscriptions[subscription]
        subscription.end(StopAsyncIteration())

    async def publish(self, message: Data) -> None:
        """Hand ``message`` to every subscriber that wants it; one that lets the server wait makes this wait."""
        for subscription in list(self._subscriptions):
            if self._wanted(subscription, message):
                await subscription.put(message)

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
        except Exception as error:
            logger.exception("the `match` of a subscription failed; the subscription ends")
            subscription.end(error)
            return False
