"""Reads the tables of a lake with the programs that people already have, and compares all columns of all rows with what
Waybill's own SQL returns: the Python package `deltalake`, DuckDB with its delta extension, and Polars.

    readers.py
"""

import importlib.util
import json
import tempfile
import time
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import polars
import pyarrow
from deltalake import DeltaTable

from support import CORPUS, Lake, control, run_checks, simulate

TABLES = ["file_events", "runs", "gaps", "quarantine"]
SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
UTC = timezone.utc

def column_type(arrow):
    """The schemas' word for an Arrow type; which of Arrow's layouts of a text or list a reader chooses says nothing."""
    types = pyarrow.types
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return "string"
    if types.is_list(arrow) or types.is_large_list(arrow):
        return f"list<{column_type(arrow.value_type)}>"
    return {"bool": "boolean", "timestamp[us, tz=UTC]": "timestamp", "date32[day]": "date"}.get(str(arrow), str(arrow))


lake: Lake


def schema(table):
    return json.loads((SCHEMAS / f"{table}.json").read_text())


def path(table):
    return str(Path(lake.url) / table)


# --- The readers: each gives a table as Arrow.


def by_deltalake(table):
    return DeltaTable(path(table)).to_pyarrow_table()


def by_duckdb(table):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    package = Path(importlib.util.find_spec("duckdb_extension_delta").origin).parent
    (extension,) = package.rglob("delta.duckdb_extension")
    connection.load_extension(str(extension))
    return connection.execute("SELECT * FROM delta_scan(?)", [path(table)]).to_arrow_table()


def by_polars(table):
    return polars.read_delta(path(table)).to_arrow()


def by_polars_lazily(table):
    return polars.scan_delta(path(table)).collect().to_arrow()


# --- The comparison.


def plain(value):
    """A value as JSON writes it."""
    if isinstance(value, datetime):
        assert value.utcoffset() == timedelta(0), value
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def own_rows(table):
    """What `waybill sql` returns, its times in the form of `plain`."""
    times = [column["name"] for column in schema(table)["columns"] if column["type"] == "timestamp"]
    rows = lake.sql(f"SELECT * FROM {table}")
    for row in rows:
        for name in times:
            if row[name] is not None:
                row[name] = plain(datetime.fromisoformat(row[name].replace("Z", "+00:00")))
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def assert_same(table, read):
    found = read(table)
    types = {field.name: column_type(field.type) for field in found.schema}
    assert types == {column["name"]: column["type"] for column in schema(table)["columns"]}, (read.__name__, types)
    rows = [{name: plain(value) for name, value in row.items()} for row in found.to_pylist()]
    rows = sorted(json.dumps(row, sort_keys=True) for row in rows)
    expected = own_rows(table)
    for ours, theirs in zip(expected, rows):
        assert ours == theirs, f"{read.__name__} reads {theirs}\nwaybill reads {ours}"
    assert len(rows) == len(expected), f"{read.__name__} reads {len(rows)} rows of {table}, waybill {len(expected)}"
    return len(rows)


def all_readers_read_the_same_rows():
    for table in TABLES:
        counts = {read.__name__: assert_same(table, read) for read in (by_deltalake, by_duckdb, by_polars, by_polars_lazily)}
        print(f"    {table}: {counts}")
        assert min(counts.values()) > 0, counts


def a_filter_on_a_hash_finds_the_same_rows():
    (row,) = lake.sql("SELECT sha256, count(*) AS n FROM file_events GROUP BY 1 ORDER BY n DESC, 1 LIMIT 1")
    digest, expected = row["sha256"], row["n"]
    connection = duckdb.connect()
    rows = by_duckdb("file_events")  # noqa: F841, DuckDB finds it by its name
    assert connection.execute("SELECT count(*) FROM rows WHERE sha256 = ?", [digest]).fetchone() == (expected,)
    frame = polars.scan_delta(path("file_events")).filter(polars.col("sha256") == digest).collect()
    assert frame.height == expected
    table = DeltaTable(path("file_events")).to_pyarrow_table(filters=[("sha256", "=", digest)])
    assert table.num_rows == expected


def every_column_tells_what_it_is():
    for name in TABLES:
        table, expected = DeltaTable(path(name)), schema(name)
        fields = table.schema().fields
        assert [field.name for field in fields] == [column["name"] for column in expected["columns"]]
        for field, column in zip(fields, expected["columns"]):
            assert field.metadata["comment"] == column["description"], field
            assert field.nullable == column["nullable"], field
        metadata = table.metadata()
        assert metadata.partition_columns == expected["partition_by"], metadata
        assert metadata.description == expected["description"], metadata


def maintenance_merges_files():
    (before,) = [each for each in lake.maintain()["tables"] if each["table"] == "file_events"]
    assert before["files_after"] < before["files_before"], before


CHECKS = [
    all_readers_read_the_same_rows,
    a_filter_on_a_hash_finds_the_same_rows,
    every_column_tells_what_it_is,
    maintenance_merges_files,
    all_readers_read_the_same_rows,
    a_filter_on_a_hash_finds_the_same_rows,
    every_column_tells_what_it_is,
]

# Several recipients, text beyond ASCII, and an attachment whose name is quoted in every format.
MAIL = """From: =?utf-8?q?J=C3=B6rg?= <joerg@corpus.example>
To: "One, A." <one@elsewhere.example>, two@other.example
Cc: three@elsewhere.example
Subject: =?utf-8?q?R=C3=BCckfragen_=E2=80=9Ezu=E2=80=9C_Nr=2E?= {number}
Message-ID: <{number}@corpus.example>
Content-Type: multipart/mixed; boundary=b

--b

body
--b
Content-Type: application/x-thing; name="a, 'b' \\"c\\"; =?utf-8?q?=F0=9F=93=8E?=.bin"
Content-Disposition: attachment

{number}
--b--
"""


if __name__ == "__main__":
    with simulate("--corpus", CORPUS, "--shift-dates", "now") as tenant, tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake", tenant)
        # The feed no longer has all of these days, and holds a record that is none: rows for `gaps` and `quarantine`.
        lake.add(tenant, since="9d")
        control(tenant, "faults", '[{"on": "blob", "times": 1, "do": "malformed_record"}]')
        report = lake.run(codes=[3])
        assert (report["gaps"], report["quarantined"]) == (1, 1), report
        for number in range(3):
            control(tenant, "messages?sent=now", MAIL.format(number=number))
            # A window ends with the last whole second.
            time.sleep(1)
            assert lake.run()["events"] == 1
        run_checks(CHECKS)
