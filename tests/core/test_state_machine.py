"""The pure part under any sequence of events: no shell, no clock, no resource."""

from __future__ import annotations

import math
import random
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nimblepool import Backoff, CircuitBreaker, CoDel, PoolWorker, Reason, Skip, Verdict
from nimblepool._audit import audit
from nimblepool._fleet import Job
from nimblepool._hooks import Hooks
from nimblepool._options import Settings
from nimblepool._slot import TRANSITIONS, Slot, SlotState
from nimblepool._state import PoolState
from nimblepool._waiter import Waiter

times = st.none() | st.sampled_from([0.5, 3.0, 20.0])
verdicts = st.sampled_from([Verdict.OK] * 5 + [Verdict.RESET, Verdict.REMOVE, Verdict.REFRESH])


class Resource:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity


class ExclusiveWorker(PoolWorker[Resource]):
    """Answers what the machine has put into ``answer``, once. The machine opens its resources."""

    async def init(self) -> Resource:
        raise AssertionError("the pure part opens nothing")

    def __init__(self) -> None:
        self.answer: Verdict | Exception | str | None = None

    def checkout(self, resource: Resource, request: object) -> Verdict:
        answer, self.answer = self.answer, None
        if isinstance(answer, Exception):
            raise answer
        return cast("Verdict", answer or Verdict.OK)

    def message(self, resource: Resource, message: object) -> Verdict:
        assert isinstance(message, list)
        return message.pop() if message else Verdict.OK


class SharedWorker(ExclusiveWorker):
    def capacity(self, resource: Resource) -> int:
        return resource.capacity


class PoolMachine(RuleBasedStateMachine):
    """Plays clients, shell and clock; `audit` and the checks below judge after every step."""

    @initialize(
        shared=st.booleans(),
        sizes=st.tuples(st.integers(0, 3), st.integers(1, 4)).filter(lambda sizes: sizes[0] <= sizes[1]),
        options=st.fixed_dictionaries(
            {
                "order": st.sampled_from(["lifo", "fifo"]),
                "strict_size": st.booleans(),
                "max_opening": st.none() | st.integers(1, 3),
                "max_waiting": st.none() | st.integers(0, 5),
                "max_idle": times,
                "max_age": times,
                "max_uses": st.none() | st.integers(1, 4),
                "ping_every": times,
                "ping_batch": st.integers(1, 3),
                "ping_after": times,
                "on_open_failure": st.sampled_from(["raise", "wait", "each"]),
                "breaker": st.none() | st.builds(CircuitBreaker, st.integers(1, 4)),
                "shedding": st.none() | st.just(CoDel(target=0.5, interval=2.0)),
                "backoff": st.just(Backoff(base=1.0, cap=8.0)),
            }
        ),
        seed=st.integers(0, 2**32),
        opened=st.integers(0, 4),
        lent=st.integers(0, 4),
    )
    def open_pool(
        self, *, shared: bool, sizes: tuple[int, int], options: dict[str, Any], seed: int, opened: int, lent: int
    ) -> None:
        self.options = Settings(min_size=sizes[0], max_size=sizes[1], **options)
        self.worker = SharedWorker() if shared else ExclusiveWorker()
        self.shared = shared
        self.now = 1000.0
        self.state: PoolState[Resource] = PoolState(
            self.options, Hooks(self.worker, crash=self.crash), rng=random.Random(seed), now=self.now
        )
        self.running: dict[Slot[Resource], Job] = {}
        self.leases: list[Slot[Resource]] = []
        self.waiting: list[Waiter[Resource]] = []
        self.asked_at: dict[Waiter[Resource], float] = {}
        self.started = 0
        self.settled = 0
        self.closed = False
        self.states: dict[Slot[Resource], SlotState] = {}
        self.state.open_more(self.now)
        self.flush()
        self.begin_in_the_middle(opened, lent)

    def begin_in_the_middle(self, opened: int, lent: int) -> None:
        """Open some resources and lend some, for the interesting events need several of each."""
        self.state.warm_up(min(opened, self.state.sizing.max_size), self.now)
        self.flush()
        for opening in [slot for slot, job in self.running.items() if job is Job.OPEN]:
            del self.running[opening]
            self.state.opened(opening, Resource(2), self.now)
            self.flush()
        self.state.warm_up(0, self.now)
        self.flush()
        for _ in range(lent):
            waiter: Waiter[Resource] = Waiter("request", math.inf)
            if self.state.lend_now(waiter, self.now):
                self.started += 1
                self.settled += 1
                self.begin(waiter)
            self.flush()

    # The shell's part

    def crash(self, error: BaseException) -> None:
        raise error

    def flush(self) -> None:
        granted = []
        while self.state.outbox:
            item = self.state.outbox.popleft()
            if isinstance(item, Waiter):
                granted += self.settle(item)
            elif item[1] is not None and item[0] is not Job.ABORT:
                assert item[1] not in self.running, "two callbacks run on one resource"
                self.running[item[1]] = item[0]
            elif item[0] is Job.ABORT:
                assert item[1] in self.running
        assert granted == sorted(granted), "served out of turn"
        if granted and self.waiting:
            assert granted[-1] <= min(waiter.since for waiter in self.waiting), "an earlier waiter was passed over"

    def settle(self, waiter: Waiter[Resource]) -> list[float]:
        assert not waiter.pending
        assert (waiter.slot is None) != (waiter.outcome is None)
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        self.settled += 1
        if waiter.slot is None:
            return []
        self.begin(waiter)
        return [self.asked_at.pop(waiter)]

    def begin(self, waiter: Waiter[Resource]) -> None:
        slot = waiter.slot
        assert slot is not None
        assert waiter.since == self.now
        self.leases.append(slot)
        assert slot.state in {SlotState.LEASED, SlotState.RETIRED}
        if self.options.max_age is not None:
            assert self.now - slot.opened_at < self.options.max_age, "lent although too old"
        assert slot.uses <= (self.options.max_uses or math.inf), "lent too often"

    def pick(self, task: Job, data: st.DataObject) -> Slot[Resource]:
        return data.draw(st.sampled_from([slot for slot, running in self.running.items() if running is task]))

    def is_running(self, task: Job) -> bool:
        return task in self.running.values()

    # Clients

    @rule(
        timeout=st.sampled_from([0.0, 0.7, 5.0, 5.0, 5.0, math.inf]),
        answer=st.sampled_from(
            [None, None, None, *Verdict, Skip(KeyError("skipped")), RuntimeError("broken"), "nonsense"]
        ),
    )
    def check_out(self, timeout: float, answer: Verdict | Exception | str | None) -> None:
        self.worker.answer = answer
        self.started += 1
        self.now += 0.001  # so that arrivals can be told apart
        self.tick()
        before = len(self.state.queue)
        waiter: Waiter[Resource] = Waiter("request", timeout)
        try:
            lent = self.state.lend_now(waiter, self.now)
        except (KeyError, RuntimeError, TypeError):
            self.settled += 1
            self.flush()
            return
        finally:
            self.worker.answer = None
        if lent:
            assert not before, "barged in"
            self.settled += 1
            self.begin(waiter)
            self.flush()
            return
        self.asked_at[waiter] = self.now
        self.state.enqueue(waiter, self.now)
        if waiter.pending:
            self.waiting.append(waiter)
        self.flush()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), verdict=verdicts, answer=st.sampled_from([None, None, *Verdict, Skip(KeyError("skipped"))]))
    def check_in(self, data: st.DataObject, verdict: Verdict, answer: Verdict | Exception | None) -> None:
        self.worker.answer = answer
        slot = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.state.give_back(slot, verdict, self.now)
        self.worker.answer = None
        self.flush()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.state.abandon(waiter)
        self.settled += 1
        self.flush()

    # Callbacks

    @precondition(lambda self: self.is_running(Job.OPEN))
    @rule(data=st.data(), works=st.sampled_from([True, True, False]), capacity=st.integers(0, 3))
    def open_ends(self, data: st.DataObject, *, works: bool, capacity: int) -> None:
        slot = self.pick(Job.OPEN, data)
        del self.running[slot]
        if works:
            self.state.opened(slot, Resource(capacity), self.now)
        else:
            self.state.open_failed(slot, OSError("refused"), self.now)
        self.flush()

    @precondition(lambda self: self.is_running(Job.PING))
    @rule(data=st.data(), alive=st.booleans())
    def ping_ends(self, data: st.DataObject, *, alive: bool) -> None:
        slot = self.pick(Job.PING, data)
        del self.running[slot]
        self.state.pinged(slot, self.now, alive=alive)
        self.flush()

    @precondition(lambda self: self.is_running(Job.RESET))
    @rule(data=st.data(), clean=st.booleans())
    def reset_ends(self, data: st.DataObject, *, clean: bool) -> None:
        slot = self.pick(Job.RESET, data)
        del self.running[slot]
        self.state.was_reset(slot, self.now, clean=clean)
        self.flush()

    @precondition(lambda self: self.is_running(Job.CLOSE))
    @rule(data=st.data())
    def close_ends(self, data: st.DataObject) -> None:
        slot = self.pick(Job.CLOSE, data)
        del self.running[slot]
        self.state.terminated(slot, self.now)
        self.flush()

    @precondition(lambda self: self.state.fleet.slots)
    @rule(data=st.data(), reason=st.sampled_from([Reason.DIED, Reason.REMOVED, Reason.EVICTED]))
    def retire(self, data: st.DataObject, reason: Reason) -> None:
        slot = data.draw(st.sampled_from(list(self.state.fleet.slots)))
        self.state.retire(slot, reason, self.now)
        self.flush()

    # Time

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 2.0, 7.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        wakes = 0
        while self.state.alarm <= end:
            self.now = max(self.now, self.state.alarm)
            self.state.tick(self.now)
            assert self.state.alarm > self.now, "the keeper would spin"
            self.flush()
            wakes += 1
            assert wakes < 1000, "the keeper wakes for nothing"
        self.now = end

    def tick(self) -> None:
        if self.state.alarm <= self.now:
            self.state.tick(self.now)
            self.flush()

    # The owner

    @rule(low=st.integers(0, 3), high=st.integers(1, 5))
    def resize(self, low: int, high: int) -> None:
        if not self.closed:
            self.state.resize(min(low, high), high, self.now)
            self.flush()

    @rule(spread=st.sampled_from([0.0, 5.0]))
    def refresh(self, spread: float) -> None:
        self.state.refresh(spread, self.now)
        self.flush()

    @rule()
    def pause(self) -> None:
        self.state.pause()
        self.flush()

    @rule()
    def resume(self) -> None:
        self.state.resume(self.now)
        self.flush()

    @rule(answers=st.lists(verdicts, max_size=4))
    def broadcast(self, answers: list[Verdict]) -> None:
        self.state.broadcast(answers, self.now)
        self.flush()

    @precondition(lambda self: self.shared)
    @rule(data=st.data(), capacity=st.integers(0, 4))
    def change_capacity(self, data: st.DataObject, capacity: int) -> None:
        living = [slot for slot in self.state.fleet.slots if slot.state is not SlotState.OPENING]
        if living:
            data.draw(st.sampled_from(living)).resource.capacity = capacity
            self.state.recount(self.now)
            self.flush()

    @rule(size=st.integers(0, 3))
    def warm_up(self, size: int) -> None:
        if not self.closed:
            self.state.warm_up(min(size, self.state.sizing.max_size), self.now)
            self.flush()

    @precondition(lambda self: not self.closed and self.settled > 10)
    @rule(drain=st.booleans())
    def close(self, *, drain: bool) -> None:
        if drain:
            self.state.drain(self.now)
        else:
            self.closed = True
            self.state.close(self.now)
        self.flush()

    # What must hold

    @invariant()
    def the_books_balance(self) -> None:
        audit(self.state, self.now)
        assert self.started == self.state.books.started == self.settled + len(self.state.queue)
        assert sum(slot.leases for slot in self.state.fleet.slots) == len(self.leases)
        assert list(self.state.queue) == self.waiting

    @invariant()
    def slots_move_as_the_table_says(self) -> None:
        seen = {*self.states, *self.state.fleet.slots, *self.running}
        for slot in seen:
            before = self.states.get(slot, SlotState.OPENING)
            assert slot.state in reachable(before), f"{before} became {slot.state}"
            self.states[slot] = slot.state

    @invariant()
    def every_callback_that_is_needed_runs(self) -> None:
        needed = {SlotState.OPENING: Job.OPEN, SlotState.PINGING: Job.PING, SlotState.RESETTING: Job.RESET}
        for slot in self.state.fleet.slots:
            assert self.running.get(slot) is needed.get(slot.state)
        closing = sum(task is Job.CLOSE for task in self.running.values())
        assert closing == self.state.fleet.closing

    @invariant()
    def no_lease_goes_beyond_the_capacity(self) -> None:
        if not self.shared:
            assert all(slot.leases <= 1 for slot in self.state.fleet.slots)
            assert len(self.leases) == len(set(map(id, self.leases)))

    def teardown(self) -> None:
        """Everybody goes home: everything that was opened is closed."""
        if not hasattr(self, "state"):
            return
        self.closed = True
        self.state.close(self.now)
        self.flush()
        while self.leases:
            self.state.give_back(self.leases.pop(), Verdict.OK, self.now)
            self.flush()
        while self.running:
            slot, task = self.running.popitem()
            match task:
                case Job.OPEN:
                    self.state.opened(slot, Resource(1), self.now)
                case Job.PING:
                    self.state.pinged(slot, self.now, alive=True)
                case Job.RESET:
                    self.state.was_reset(slot, self.now, clean=True)
                case _:
                    self.state.terminated(slot, self.now)
            self.flush()
        assert not self.state.fleet.slots
        assert not self.waiting
        assert self.state.fleet.opened == self.state.fleet.closed
        self.the_books_balance()


def reachable(state: SlotState) -> set[SlotState]:
    """Return where a slot can be after any number of events."""
    found = {state}
    ahead = [state]
    while ahead:
        for targets in TRANSITIONS[ahead.pop()].values():
            new = set(targets) - found
            found |= new
            ahead += new
    return found


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=400,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
