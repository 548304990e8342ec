"""simdjson as the peer of `benches/records.rs`: reads the file's JSON for each line that comes in; a JSON line out."""

import json
import sys
import time
from pathlib import Path

import simdjson

content = Path(sys.argv[1]).read_bytes()
parser = simdjson.Parser()
for _ in sys.stdin:
    began = time.perf_counter()
    # An array that is not read: only its places are known then.
    records = len(parser.parse(content))
    print(json.dumps({"seconds": time.perf_counter() - began, "records": records}), flush=True)
