"""`rclone hashsum --download` as a peer of `benches/digests.rs`: a JSON line in and one out. It takes one digest in a pass.

Told where the attachments are, one in a file, it says its version; none when it is not installed. Times are CPU times, its
start included, which is a few hundredths of a second.
"""

import json
import os
import resource
import shutil
import subprocess
import sys

folder = json.loads(sys.stdin.readline())["folder"]
rclone = shutil.which("rclone")
version = subprocess.check_output([rclone, "version"], text=True).split("\n")[0] if rclone else None
print(json.dumps({"version": version}), flush=True)


def cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


for line in sys.stdin:
    names = sorted(os.listdir(folder))[: json.loads(line)["attachments"]]
    digests = {name: [] for name in names}
    filters = [word for name in names for word in ("--include", f"/{name}")]
    began = cpu()
    for kind in ("MD5", "SHA-256"):
        command = [rclone, "hashsum", kind, "--download", "--config", os.devnull, *filters, folder]
        for told in subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).splitlines():
            digest, name = told.split()
            digests[name].append(digest)
    answer = {"seconds": cpu() - began, "digests": [digests[name] for name in names]}
    print(json.dumps(answer), flush=True)
