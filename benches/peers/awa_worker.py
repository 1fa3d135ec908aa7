"""A worker process of awa."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from importlib.metadata import version

import asyncpg
import awa
import uvloop

from clock import handle, served


@dataclass
class Numbered:
    n: int


async def main(command, kind=None, argument=None):
    settings = json.loads(argument) if command == "work" else {}
    url = f"postgres://{os.environ['PGUSER']}@localhost/{os.environ['PGDATABASE']}?host={os.environ['PGHOST']}"
    client = awa.AsyncClient(url, settings.pop("connections", 4))
    if command == "install":
        await client.migrate()
        await client.install_queue_storage()
        print(version("awa-pg"))
    elif command == "fill":
        for begin in range(0, int(argument), 5000):
            jobs = [Numbered(n) for n in range(begin + 1, min(begin + 5000, int(argument)) + 1)]
            await client.enqueue_many_copy(jobs, queue=kind)
    else:
        pool = await asyncpg.create_pool(min_size=1, max_size=settings.pop("pool"))

        @client.task(Numbered, queue=kind)
        async def task(job):
            await handle(kind, job.args.n, pool)

        await client.start([{"name": kind, **settings}])
        await served()
        await client.shutdown()
    await client.close()


uvloop.run(main(*sys.argv[1:]))
