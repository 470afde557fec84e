"""Ctrl-C in the midst of a change of the pool's state is held back until the change is complete."""

from __future__ import annotations

import signal

import pytest
import trio
import trio.testing

from nimblepool import Pool, Verdict, open_pool
from nimblepool.testing import FakeResource, FakeWorker, check_balance


class Interrupted(FakeWorker):
    """A worker in one of whose plain callbacks the user presses Ctrl-C."""

    def __init__(self, callback: str) -> None:
        super().__init__(capacity=1)
        self._callback = callback

    def press(self, callback: str) -> None:
        if callback == self._callback:
            self._callback = "none: it is pressed once"
            signal.raise_signal(signal.SIGINT)

    def checkout(self, resource: FakeResource, request: object) -> Verdict:
        self.press("checkout")
        return super().checkout(resource, request)

    def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
        self.press("checkin")
        return super().checkin(resource, error)

    def capacity(self, resource: FakeResource) -> int:
        self.press("capacity")
        return super().capacity(resource)

    def enqueue(self, request: object) -> object:
        self.press("enqueue")
        return super().enqueue(request)

    def message(self, resource: FakeResource, message: object) -> Verdict:
        self.press("message")
        return super().message(resource, message)


@pytest.mark.parametrize("callback", ["checkout", "checkin", "capacity", "enqueue", "message"])
def test_an_interrupt_leaves_the_books_in_order(callback: str) -> None:
    worker = Interrupted(callback)
    pools: list[Pool[FakeResource]] = []

    async def main() -> None:
        async with open_pool(worker, max_size=1) as pool:
            pools.append(pool)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pool.run, FakeResource.use)
            pool.broadcast("news")
            await trio.sleep(1)
            raise AssertionError("Ctrl-C was lost")

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - judged below
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert is_interrupt(caught.value)
    check_balance(pools[0])
    assert all(len(resource.terminated) == 1 for resource in worker.resources)


def is_interrupt(error: BaseException) -> bool:
    """Tell whether ``error`` is a KeyboardInterrupt, or a nursery's group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_interrupt, error.exceptions))
    return isinstance(error, KeyboardInterrupt)
