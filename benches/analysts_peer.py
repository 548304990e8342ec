"""Many analysts at once for `benches/analysts.rs`: clients of the Postgres port (psycopg), a JSON line in, a JSON line out.

Each client asks one question after the other until the time is over, and begins elsewhere in the list than its neighbour.
"""

import asyncio
import json
import sys
import time

import psycopg


async def analyst(told, number, times, failures):
    statements = told["statements"]
    connection = await psycopg.AsyncConnection.connect(
        host=told["host"], port=told["port"], dbname="waybill", user=f"analyst{number}", autocommit=True
    )
    async with connection:
        ends = time.perf_counter() + told["seconds"]
        place = number * 7
        while time.perf_counter() < ends:
            kind, statement = statements[place % len(statements)]
            place += 1
            began = time.perf_counter()
            try:
                await (await connection.execute(statement)).fetchall()
            except psycopg.Error as error:
                failures.append(str(error))
            times.setdefault(kind, []).append(time.perf_counter() - began)


async def analysts(told):
    times, failures = {}, []
    async with asyncio.TaskGroup() as group:
        for number in range(told["clients"]):
            group.create_task(analyst(told, number, times, failures))
    return {"times": times, "failures": failures}


for line in sys.stdin:
    print(json.dumps(asyncio.run(analysts(json.loads(line)))), flush=True)
