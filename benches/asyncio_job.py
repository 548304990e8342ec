"""The job as one would write it in an afternoon: asyncio, aiohttp, hashlib, deltalake. The peer of `benches/limits.rs`.

A JSON line in, a JSON line out. It reads the feed of the last two days, looks each send up, hashes its attachments and appends
one row for each to a Delta table in one commit at the end. What makes a job one that can be trusted is not in it: no
checkpoint, no retries, no budget of requests, no audit record twice, no send that is not found yet.
"""

import asyncio
import hashlib
import json
import resource
import sys
import time
import urllib.parse
from datetime import UTC, datetime, timedelta

import aiohttp
import pyarrow
from deltalake import write_deltalake

AT_ONCE = 32
PIECE_BYTES = 64 * 1024
FIND = (
    "$select=id,internetMessageId,subject,sender,toRecipients,sentDateTime"
    "&$expand=attachments($select=id,name,contentType,size)"
)


async def token(session, told, resource_name):
    form = {
        "grant_type": "client_credentials",
        "client_id": told["client_id"],
        "client_secret": told["client_secret"],
        "scope": f"{resource_name}/.default",
    }
    url = f"{told['login']}/{told['tenant_id']}/oauth2/v2.0/token"
    async with session.post(url, data=form) as answer:
        return {"authorization": f"Bearer {(await answer.json())['access_token']}"}


async def blobs(session, told, headers):
    feed = f"{told['activity']}/api/v1.0/{told['tenant_id']}/activity/feed/subscriptions"
    async with session.post(f"{feed}/start?contentType=Audit.Exchange", headers=headers) as answer:
        await answer.read()
    now = datetime.now(UTC)
    for day in (2, 1):
        start, end = (f"{now - timedelta(days=days):%Y-%m-%dT%H:%M:%S}" for days in (day, day - 1))
        url = f"{feed}/content?contentType=Audit.Exchange&startTime={start}&endTime={end}"
        while url:
            async with session.get(url, headers=headers) as answer:
                answer.raise_for_status()
                for blob in await answer.json():
                    yield blob["contentUri"]
                url = answer.headers.get("NextPageUri")


async def job(told):
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:
        feed = await token(session, told, "https://manage.office.com")
        graph = await token(session, told, "https://graph.microsoft.com")
        sends = asyncio.Queue(maxsize=1_000)
        rows = []

        async def read():
            async for uri in blobs(session, told, feed):
                async with session.get(uri, headers=feed) as answer:
                    answer.raise_for_status()
                    records = json.loads(await answer.read())
                for record in records:
                    if record["Operation"] == "Send" and record["Item"].get("Attachments"):
                        await sends.put(record)
            for _ in range(AT_ONCE):
                await sends.put(None)

        async def work():
            while record := await sends.get():
                user = f"{told['graph']}/v1.0/users/{urllib.parse.quote(record['MailboxOwnerUPN'])}/messages"
                wanted = urllib.parse.quote(f"internetMessageId eq '{record['Item']['InternetMessageId']}'")
                async with session.get(f"{user}?$filter={wanted}&{FIND}", headers=graph) as answer:
                    answer.raise_for_status()
                    messages = (await answer.json())["value"]
                for message in messages[:1]:
                    for attachment in message["attachments"]:
                        url = f"{user}/{message['id']}/attachments/{attachment['id']}/$value"
                        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
                        async with session.get(url, headers=graph) as answer:
                            answer.raise_for_status()
                            async for piece in answer.content.iter_chunked(PIECE_BYTES):
                                md5.update(piece)
                                sha256.update(piece)
                                size += len(piece)
                        rows.append(
                            {
                                "observed_at": record["CreationTime"],
                                "sender": record["MailboxOwnerUPN"],
                                "recipients": [to["emailAddress"]["address"] for to in message["toRecipients"]],
                                "subject": message["subject"],
                                "file_name": attachment["name"],
                                "file_size_bytes": size,
                                "md5": md5.hexdigest(),
                                "sha256": sha256.hexdigest(),
                            }
                        )

        await asyncio.gather(read(), *(work() for _ in range(AT_ONCE)))
    write_deltalake(told["folder"], pyarrow.Table.from_pylist(rows))
    return rows


for line in sys.stdin:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    began, cpu = time.perf_counter(), usage.ru_utime + usage.ru_stime
    done = asyncio.run(job(json.loads(line)))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    answer = {
        "seconds": time.perf_counter() - began,
        "cpu": usage.ru_utime + usage.ru_stime - cpu,
        "attachments": len(done),
        "bytes": sum(row["file_size_bytes"] for row in done),
    }
    print(json.dumps(answer), flush=True)
