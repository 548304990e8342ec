"""OpenSSL as the peer of `benches/digests.rs`: both digests in turn on one core, a JSON line in and one out.

Python's `hashlib` calls OpenSSL for every piece. A piece has 64 KB, beside which the call itself is nothing.
"""

import hashlib
import json
import ssl
import sys
import time

PIECE_BYTES = 64 * 1024

told = json.loads(sys.stdin.readline())
with open(told["file"], "rb") as file:
    attachments = [memoryview(file.read(size)) for size in told["sizes"]]
print(json.dumps({"version": ssl.OPENSSL_VERSION}), flush=True)
for line in sys.stdin:
    count = json.loads(line)["attachments"]
    digests = []
    began = time.process_time()
    for attachment in attachments[:count]:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        for start in range(0, len(attachment), PIECE_BYTES):
            piece = attachment[start : start + PIECE_BYTES]
            md5.update(piece)
            sha256.update(piece)
        digests.append([md5.hexdigest(), sha256.hexdigest()])
    seconds = time.process_time() - began
    print(json.dumps({"seconds": seconds, "digests": digests}), flush=True)
