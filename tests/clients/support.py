"""What the checks share: a simulated tenant, a lake, and the `waybill` binary (WAYBILL_BIN, else the one on the PATH)."""

import contextlib
import json
import os
import subprocess
import sys
import traceback
import urllib.request
from pathlib import Path

WAYBILL = os.environ.get("WAYBILL_BIN", "waybill")
CORPUS = Path(__file__).parent.parent / "fixtures" / "eml-mikel-mail"


@contextlib.contextmanager
def simulate(*arguments):
    """A simulated tenant in a process of its own; gives what it announced."""
    command = [WAYBILL, "simulate", "--listen", "127.0.0.1:0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, f"{command} did not start"
        yield json.loads(line)
    finally:
        process.kill()
        process.wait()


def control(tenant, path, body=None):
    """One of the simulator's own requests, which are no part of what it simulates; of http tenants only."""
    data = body.encode() if body is not None else None
    with urllib.request.urlopen(f"{tenant['login']}/_simulator/{path}", data) as answer:
        return json.load(answer)


def truth(tenant):
    """Every message that the tenant's users sent, with its attachments and their digests."""
    return control(tenant, "truth")["messages"]


class Lake:
    def __init__(self, url, tenant=None):
        self.url = str(url)
        self.environment = dict(os.environ)
        if tenant:
            self.environment["WAYBILL_TEST_SECRET"] = tenant["client_secret"]

    def waybill(self, *arguments, codes=(0,)):
        command = [WAYBILL, "--lake", self.url, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode in codes, f"{command} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def add(self, tenant, name="Test", since="24h"):
        endpoints = [f"--endpoint={which}={tenant[which]}" for which in ("login", "graph", "activity")]
        self.waybill(
            "connection", "add", "--name", name, "--tenant", tenant["tenant_id"], "--client-id", tenant["client_id"],
            "--client-secret-env", "WAYBILL_TEST_SECRET", "--scope", "all", "--since", since, *endpoints,
        )  # fmt: skip

    def run(self, name="Test", codes=(0,)):
        return json.loads(self.waybill("run", "--connection", name, "--output", "json", codes=codes))

    def maintain(self):
        return json.loads(self.waybill("maintain", "--output", "json"))

    def sql(self, query):
        # Not splitlines(): the texts of mails hold other line separators, which JSON does not escape.
        return [json.loads(line) for line in self.waybill("sql", "--format", "ndjson", query).split("\n") if line]


@contextlib.contextmanager
def serve(lake, *arguments):
    """`waybill serve` in a process of its own; gives what it announced."""
    addresses = [] if arguments else ["--http", "127.0.0.1:0"]
    command = [WAYBILL, "--lake", lake.url, "serve", *addresses, *arguments]
    process = subprocess.Popen(command, env=lake.environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, f"{command} did not start"
        yield json.loads(line)
    finally:
        process.terminate()
        process.wait()


def run_checks(checks):
    """Runs functions that are named as the sentences that they prove; ends the process with 1 if one fails."""
    failed = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check()
        except Exception:
            failed += 1
            print(f"FAILED: {name}")
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok: {name}")
    sys.exit(1 if failed else 0)
