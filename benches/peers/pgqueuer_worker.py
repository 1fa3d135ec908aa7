"""A worker process of pgqueuer."""

import asyncio
import json
import sys
from importlib.metadata import version

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.queries import Queries

from clock import handle, served


async def main(command, kind=None, argument=None):
    settings = json.loads(argument) if command == "work" else {}
    pool = await asyncpg.create_pool(min_size=2, max_size=settings.pop("pool", 2))
    queries = Queries(AsyncpgPoolDriver(pool))
    if command == "install":
        await queries.install()
        print(version("pgqueuer"))
    elif command == "fill":
        for begin in range(0, int(argument), 5000):
            payloads = [str(n).encode() for n in range(begin + 1, min(begin + 5000, int(argument)) + 1)]
            await queries.enqueue([kind] * len(payloads), payloads, [0] * len(payloads))
    else:
        worker = PgQueuer.from_asyncpg_pool(pool)

        @worker.entrypoint(kind)
        async def task(job):
            await handle(kind, int(job.payload), pool)

        running = asyncio.create_task(worker.qm.run(**settings))
        await served()
        worker.shutdown.set()
        await running


uvloop.run(main(*sys.argv[1:]))
