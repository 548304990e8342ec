"""DuckDB as the peer of `benches/queries.rs`: reads the data files of a lake directly, a JSON line in and one out."""

import json
import sys
import tempfile
import time

import duckdb

# What the cookbook says in Waybill's words, in DuckDB's; where Waybill does more, DuckDB is given less to do.
MACROS = """
CREATE MACRO is_free_mail(address) AS split_part(lower(address), '@', -1) IN ({free_mail});
CREATE MACRO is_file_mismatch(by_bytes, by_name) AS by_bytes <> by_name;
CREATE MACRO hour_in_zone(moment, area) AS hour(timezone(area, moment));
CREATE MACRO cardinality(items) AS len(items);
"""

connection = duckdb.connect()
# What does not fit into memory goes where Waybill's does, and not beside the sources.
spilled = tempfile.TemporaryDirectory()
connection.execute(f"SET temp_directory = '{spilled.name}'")
# As Waybill: times in UTC, footers kept between queries.
connection.execute("SET TimeZone = 'UTC'")
connection.execute("SET enable_object_cache = true")
setup = json.loads(sys.stdin.readline())
connection.execute(MACROS.format(free_mail=", ".join(f"'{domain}'" for domain in setup["free_mail"])))
for setting in setup["settings"]:
    connection.execute(f"SET {setting}")
print(json.dumps({}), flush=True)


def view(name, files, columns):
    """A table of the lake over its data files; an empty one where it has none."""
    if files:
        days = ", hive_types = {'event_date': DATE}" if name == "file_events" else ""
        source = f"read_parquet({files!r}, hive_partitioning = true{days})"
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {source}")
    else:
        nothing = ", ".join(f"NULL AS {column}" for column in columns)
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {nothing} WHERE false")


for line in sys.stdin:
    told = json.loads(line)
    try:
        if "table" in told:
            view(told["table"], told["files"], told["columns"])
            answer = {}
        else:
            # An aggregate of that name is a window's only.
            statement = told["statement"].replace("first_value(sender ORDER BY", "first(sender ORDER BY")
            began, cpu = time.perf_counter(), time.process_time()
            rows = connection.execute(statement).to_arrow_table().num_rows
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            answer = {"seconds": seconds, "cpu": cpu, "rows": rows}
    except duckdb.Error as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
