"""DuckDB as the peer of `benches/queries.rs`: reads the data files of a lake directly, a JSON line in and one out."""

import json
import sys
import time

import duckdb

connection = duckdb.connect()
# As Waybill: times in UTC, footers kept between queries.
connection.execute("SET TimeZone = 'UTC'")
connection.execute("SET enable_object_cache = true")
files = json.loads(sys.stdin.readline())["files"]
connection.execute(
    f"CREATE VIEW file_events AS SELECT * FROM read_parquet({files!r}, hive_partitioning = true, hive_types = {{'event_date': DATE}})"
)
print(json.dumps({}), flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    try:
        rows = connection.execute(json.loads(line)["statement"]).fetch_arrow_table().num_rows
        answer = {"seconds": time.perf_counter() - began, "rows": rows}
    except duckdb.Error as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
