"""What the Python peers have in common: handlers that note when the first began and the last ended, told on stdout while the
process runs. It ends when its stdin is closed."""

import asyncio
import sys
import time

_noted = {"jobs": 0, "first": None, "last": None}


async def handle(kind, n, pool):
    """What a handler does with a job's number; the pool is the application's."""
    _noted["first"] = _noted["first"] or time.time()
    if kind == "write":
        await pool.execute("insert into effect values ($1)", n)
    _noted["last"] = time.time()
    _noted["jobs"] += 1


async def _tell():
    told = 0
    while True:
        await asyncio.sleep(0.1)
        if _noted["jobs"] != told:
            told = _noted["jobs"]
            print(told, _noted["first"], _noted["last"], flush=True)


async def served():
    """Says that the worker runs, and returns when the bench says that it is to end."""
    print("ready", flush=True)
    telling = asyncio.create_task(_tell())
    await asyncio.to_thread(sys.stdin.read)
    telling.cancel()
