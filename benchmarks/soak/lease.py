"""What a client does with a lease."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import TYPE_CHECKING

import trio

from nimblepool import LeaseExpired

from .faults import Fault
from .promise import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nimblepool import Lease
    from nimblepool.testing import FakeResource

    from .scene import Scene

ENDINGS = ("well", "error", "remove", "release", "kill", "replace")
ENDINGS_CUMULATED = list(accumulate((80, 8, 3, 4, 3, 2)))


async def use(scene: Scene, lease: Lease[FakeResource]) -> None:
    """Hold ``lease`` for a while, and end it in one way or another."""
    rng = scene.rng
    resource = lease.resource
    with exclusively(scene, resource):
        await trio.sleep(rng.choice([0.0, 0.0, rng.expovariate(10.0), rng.expovariate(1.0)]))
        if lease.is_held:
            require(lease.resource is resource, "a lease changed its resource")
            require(resource.is_open, f"{resource} was terminated under its lease")
            part(scene, lease)


async def use_bare(scene: Scene, resource: FakeResource) -> None:
    """Hold ``resource`` for a while."""
    with exclusively(scene, resource):
        await trio.sleep(scene.rng.expovariate(10.0))


@contextmanager
def exclusively(scene: Scene, resource: FakeResource) -> Iterator[None]:
    """Count the leases of ``resource``, for the block."""
    scene.leases[resource] += 1
    now, most = scene.leases[resource], scene.worker.most_leases(resource)
    require(now <= most, f"{resource} has {now} leases, and never carried more than {most}")
    try:
        yield
    finally:
        scene.leases[resource] -= 1


def part(scene: Scene, lease: Lease[FakeResource]) -> None:
    """End the body of ``lease``."""
    match scene.rng.choices(ENDINGS, cum_weights=ENDINGS_CUMULATED)[0]:
        case "error":
            raise Fault("a client's own")
        case "remove":
            lease.remove()
        case "release":
            lease.release()
            with suppress(LeaseExpired):
                require(lease.resource is None, "a lease that has ended gave out its resource")
        case "kill":
            lease.resource.kill()
        case "replace" if not scene.worker.is_shared:
            lease.replace(scene.worker.replace(lease.resource))
        case _:
            pass
