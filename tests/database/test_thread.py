import threading
import weakref
from functools import partial

import pytest
import trio

from nimblepool_database._call import Call
from nimblepool_database._thread import ConnectionThread


def nothing() -> None:
    pass


async def test_results_and_errors_come_back() -> None:
    thread = ConnectionThread("t")
    assert await thread.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 / 0)
    with pytest.raises(SystemExit):
        await thread.run_interruptibly(partial(exec, "raise SystemExit"), nothing)
    assert await thread.run_interruptibly(lambda: "still there", nothing) == "still there"
    assert await thread.finish(lambda: "bye", nothing) == "bye"
    assert "t" not in {each.name for each in threading.enumerate()}


async def test_functions_run_in_the_order_they_were_asked_for() -> None:
    thread = ConnectionThread("t")
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(thread.run, partial(seen.append, n))
            await trio.testing.wait_all_tasks_blocked()
    assert seen == list(range(20))
    await thread.finish(nothing, nothing)


async def test_a_cancelled_function_is_interrupted_until_it_ends_and_then_the_cancellation_comes_out() -> None:
    thread = ConnectionThread("t")
    asked = threading.Semaphore(0)
    left = False

    def deaf_to_the_first_two() -> str:
        nonlocal left
        for _ in range(3):
            asked.acquire()
        left = True
        return "a result that nobody may see"

    with trio.move_on_after(0.01) as scope:
        await thread.run_interruptibly(deaf_to_the_first_two, asked.release)
    assert scope.cancelled_caught
    assert left
    assert not thread.busy
    await thread.finish(nothing, nothing)


async def test_a_cancelled_function_that_has_not_begun_never_runs_and_interrupts_nobody() -> None:
    thread = ConnectionThread("t")
    gate = threading.Event()
    interrupts: list[str] = []
    ran: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01) as scope:
            await thread.run_interruptibly(partial(ran.append, "no"), partial(interrupts.append, "no"))
        gate.set()
    assert scope.cancelled_caught
    assert await thread.run(lambda: "next") == "next"
    assert ran == interrupts == []
    await thread.finish(nothing, nothing)


async def test_an_interrupt_that_comes_too_late_is_not_made() -> None:
    interrupts: list[str] = []
    call = Call(nothing, nothing)
    call.interrupt(partial(interrupts.append, "early"))
    call.run()
    call.interrupt(partial(interrupts.append, "late"))
    await call.wait()
    assert interrupts == []
    assert not call.interrupted


async def test_run_may_be_left_and_says_so() -> None:
    thread = ConnectionThread("t")
    gate = threading.Event()
    with trio.move_on_after(0.01):
        await thread.run(gate.wait)
    assert thread.busy
    gate.set()
    await thread.finish(nothing, nothing)
    assert not thread.busy


async def test_finishing_interrupts_what_is_ahead() -> None:
    thread = ConnectionThread("t")
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.run, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        await thread.finish(nothing, gate.set)


async def test_a_finish_that_is_cancelled_still_ends_the_thread() -> None:
    thread = ConnectionThread("t")
    gate, ended = threading.Event(), threading.Event()
    with trio.move_on_after(0.01) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, gate.wait)
            await trio.testing.wait_all_tasks_blocked()
            await thread.finish(ended.set, nothing)
    assert scope.cancelled_caught
    assert not ended.is_set()
    gate.set()
    assert await trio.to_thread.run_sync(ended.wait, 10)
    thread._thread.join(10)
    assert not thread._thread.is_alive()


async def test_an_idle_thread_keeps_no_result_alive() -> None:
    class Rows(list[int]):
        pass

    thread = ConnectionThread("t")
    rows = await thread.run(Rows)
    gone = trio.Event()
    weakref.finalize(rows, trio.lowlevel.current_trio_token().run_sync_soon, gone.set)
    del rows
    # The thread forgets a call a moment after it has reported.
    with trio.fail_after(10.0):
        await gone.wait()
    await thread.finish(nothing, nothing)


def test_a_thread_serves_another_run_of_trio() -> None:
    threads: list[ConnectionThread] = []

    async def first() -> None:
        threads.append(ConnectionThread("t"))
        assert await threads[0].run(lambda: 1) == 1

    async def second() -> None:
        assert await threads[0].run(lambda: 2) == 2
        await threads[0].finish(nothing, nothing)

    trio.run(first)
    trio.run(second)
