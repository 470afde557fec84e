"""A worker for tests that does as it is told."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast, final

import trio

from ._verdict import Reason, Verdict
from ._worker import PoolWorker

if TYPE_CHECKING:
    from ._verdict import Stage

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Fail:
    """Let a callback raise ``error``."""

    error: BaseException


@final
@dataclass(frozen=True, slots=True)
class Slow:
    """Let an asynchronous callback take ``seconds``, and then do what ``then`` says."""

    seconds: float
    then: object = None


@final
@dataclass(frozen=True, slots=True)
class Hang:
    """Let an asynchronous callback never return; it can be cancelled."""


@final
@dataclass(eq=False, slots=True)
class FakeResource:
    """What `FakeWorker` opens."""

    number: int
    """1 for the first one."""
    terminated: list[Reason] = field(default_factory=list[Reason])
    """Why it was terminated; a single reason if all is well."""
    dead: trio.Event = field(default_factory=trio.Event)

    async def use(self, seconds: float = 0.0) -> int:
        """Do something with it for ``seconds``, and return its number.

        Raises:
            RuntimeError: it was terminated, before or meanwhile.
        """
        await trio.sleep(seconds)
        if self.terminated:
            raise RuntimeError(f"{self} is used after it was terminated ({self.terminated[0]})")
        return self.number

    def kill(self) -> None:
        """Let its ``watch`` end, and every ``ping`` fail."""
        self.dead.set()

    @property
    def is_open(self) -> bool:
        """Whether it was not terminated yet."""
        return not self.terminated

    def __repr__(self) -> str:
        return f"<FakeResource {self.number}>"


class FakeWorker(PoolWorker[FakeResource]):
    """A worker whose every callback follows a script, and succeeds when the script has ended.

    A step is `Fail`, `Slow`, `Hang`, or a value to return: ``worker.script("checkout", Verdict.REMOVE)``.

    Args:
        capacity: if given, resources are shared, and this is how many leases each carries; it may be changed.
        watched: whether resources are watched, so that ``resource.kill()`` is noticed at once.
    """

    def __init__(self, *, capacity: int | None = None, watched: bool = False) -> None:
        self.capacity_now = capacity
        self.resources: list[FakeResource] = []
        """Every resource that was opened."""
        self.calls: list[tuple[str, object]] = []
        """Every call of a callback: its name, and the resource or request it was about."""
        self._scripts: defaultdict[str, deque[object]] = defaultdict(deque)
        self._always: dict[str, object] = {}
        # The pool looks up once which callbacks a worker overrides; this undoes it for the two that cost something.
        if capacity is None:
            self.capacity = super().capacity  # type: ignore[method-assign]
        if not watched:
            self.watch = super().watch  # type: ignore[method-assign]

    def script(self, callback: str, *steps: object) -> None:
        """Say what the next calls of ``callback`` do, one step a call."""
        self._scripts[callback].extend(steps)

    def always(self, callback: str, step: object) -> None:
        """Say what the calls of ``callback`` do when its script has ended; ``None`` lets them succeed again."""
        self._always[callback] = step

    @property
    def open_now(self) -> list[FakeResource]:
        """The resources that were opened and not terminated."""
        return [resource for resource in self.resources if resource.is_open]

    def count(self, callback: str) -> int:
        """Return how often ``callback`` was called."""
        return sum(name == callback for name, _ in self.calls)

    async def init(self) -> FakeResource:
        await self._act("init", None)
        resource = FakeResource(len(self.resources) + 1)
        self.resources.append(resource)
        return resource

    async def terminate(self, resource: FakeResource, reason: Reason) -> None:
        resource.terminated.append(reason)
        await self._act("terminate", resource)

    async def reset(self, resource: FakeResource) -> None:
        await self._act("reset", resource)

    async def ping(self, resource: FakeResource) -> None:
        await self._act("ping", resource)
        if resource.dead.is_set():
            raise ConnectionError(f"{resource} is dead")

    async def watch(self, resource: FakeResource) -> None:
        await self._act("watch", resource)
        await resource.dead.wait()

    async def start(self) -> None:
        await self._act("start", None)

    async def stop(self) -> None:
        await self._act("stop", None)

    def checkout(self, resource: FakeResource, request: object) -> Verdict:
        return self._decide("checkout", resource, Verdict.OK)

    def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
        return self._decide("checkin", resource, super().checkin(resource, error))

    def capacity(self, resource: FakeResource) -> int:
        return self._decide("capacity", resource, self.capacity_now or 0)

    def message(self, resource: FakeResource, message: object) -> Verdict:
        return self._decide("message", resource, Verdict.OK)

    def enqueue(self, request: object) -> object:
        return self._decide("enqueue", request, request)

    def cancelled(self, stage: Stage, request: object) -> None:
        self._decide("cancelled", (stage, request), None)

    def _next(self, callback: str, subject: object) -> object:
        self.calls.append((callback, subject))
        script = self._scripts[callback]
        return script.popleft() if script else self._always.get(callback)

    async def _act(self, callback: str, subject: object) -> None:
        step = self._next(callback, subject)
        if isinstance(step, Slow):
            await trio.sleep(step.seconds)
            step = step.then
        match step:
            case Hang():
                await trio.sleep_forever()
            case Fail(error):
                raise error
            case _:
                await trio.lowlevel.checkpoint()

    def _decide(self, callback: str, subject: object, default: T) -> T:
        step = self._next(callback, subject)
        if isinstance(step, Fail):
            raise step.error
        return default if step is None else cast("T", step)
