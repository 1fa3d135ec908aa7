"""A worker process of procrastinate."""

import asyncio
import json
import sys
from importlib.metadata import version

import asyncpg
import uvloop
from procrastinate import App, PsycopgConnector

from clock import handle, served


async def main(command, kind=None, argument=None, locks=0):
    settings = json.loads(argument) if command == "work" else {}
    pool_size = settings.pop("pool", 4)
    app = App(connector=PsycopgConnector(min_size=2, max_size=pool_size))
    async with app.open_async():
        if command == "install":
            await app.schema_manager.apply_schema_async()
            print(version("procrastinate"))
            return
        pool = await asyncpg.create_pool(min_size=2, max_size=pool_size)

        @app.task(name=kind, queue=kind)
        async def task(n):
            await handle(kind, n, pool)

        if command == "fill":
            jobs, locks = int(argument), int(locks)
            for begin in range(1, jobs + 1, 5000):
                numbers = range(begin, min(begin + 5000, jobs + 1))
                if locks:
                    batch = [task.configure(lock=f"lock {n % locks}").make_new_job(n=n) for n in numbers]
                    await app.job_manager.batch_defer_jobs_async(batch)
                else:
                    await task.batch_defer_async(*({"n": n} for n in numbers))
        else:
            running = asyncio.create_task(app.run_worker_async(install_signal_handlers=False, **settings))
            await served()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await pool.close()


uvloop.run(main(*sys.argv[1:]))
