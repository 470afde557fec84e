"""A pool of subprocesses, driven over pipes by a worker written by hand; it survives the death of one of them."""

import subprocess
import sys

import trio

from nimblepool import Pool, PoolWorker, Reason, open_pool

PROGRAM = "import sys\nfor line in sys.stdin: print(int(line) ** 2, flush=True)"
UNLUCKY = 7


class SquareWorker(PoolWorker[trio.Process]):
    """Opens Python processes that answer every number with its square."""

    async def init(self) -> trio.Process:
        command = [sys.executable, "-c", PROGRAM]
        return await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def terminate(self, resource: trio.Process, reason: Reason) -> None:
        print(f"process {resource.pid} is closed ({reason})")
        resource.kill()
        await resource.wait()
        for pipe in (resource.stdin, resource.stdout):
            if pipe is not None:
                await pipe.aclose()

    async def watch(self, resource: trio.Process) -> None:
        await resource.wait()


async def square(process: trio.Process, number: int) -> int:
    """Send ``number`` to ``process`` and read the answer."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without pipes")
    await process.stdin.send_all(b"%d\n" % number)
    answer = b""
    while not answer.endswith(b"\n"):
        received = await process.stdout.receive_some()
        if not received:
            raise trio.BrokenResourceError("the process has ended")
        answer += received
    return int(answer)


async def ask(pool: Pool[trio.Process], number: int) -> None:
    """Have any process square ``number``; if it dies first, have another one do it."""
    try:
        async with pool.checkout() as lease:
            if number == UNLUCKY:
                print(f"killing process {lease.resource.pid}, which has to square {number}")
                lease.resource.kill()
            answer = await square(lease.resource, number)
    except trio.BrokenResourceError:
        print(f"no answer for {number}; asking another process")
        answer = await pool.run(square, number)
    print(f"{number:2} squared is {answer}")


async def main() -> None:
    """Square twelve numbers on three processes, and kill one of the three meanwhile."""
    async with open_pool(SquareWorker(), min_size=3, max_size=3, name="squares") as pool:
        async with trio.open_nursery() as nursery:
            for number in range(1, 13):
                nursery.start_soon(ask, pool, number)
        await pool.wait_ready()
        stats = pool.stats
        print(f"{stats.started} checkouts, {stats.opened} processes opened, {stats.lost} lost, {stats.size} alive")


if __name__ == "__main__":
    trio.run(main)
