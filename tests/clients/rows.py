"""Reads the Parquet and Arrow that `waybill sql` and `waybill search` write with pyarrow and DuckDB, and compares the rows
with those of the JSON that it writes.

    rows.py
"""

import io
import subprocess
import tempfile
from datetime import date, datetime
from pathlib import Path

import duckdb
import pyarrow.ipc
import pyarrow.parquet

from support import CORPUS, WAYBILL, Lake, run_checks, simulate

QUERY = "SELECT * FROM file_events ORDER BY event_id"

lake: Lake
folder: Path


def same(table, rows):
    """The same values; times, which JSON has as text, by their instant."""
    found = table.to_pylist()
    assert len(found) == len(rows) > 30, (len(found), len(rows))
    for ours, theirs in zip(rows, found):
        for name, value in theirs.items():
            if isinstance(value, datetime):
                assert datetime.fromisoformat(ours[name]) == value, (name, ours[name], value)
            elif isinstance(value, date):
                assert ours[name] == value.isoformat(), (name, ours[name], value)
            else:
                assert ours[name] == value, (name, ours[name], value)


def pyarrow_and_duckdb_read_a_parquet_file():
    path = folder / "events.parquet"
    lake.waybill("sql", "--format", "parquet", "--output-file", str(path), QUERY)
    file = pyarrow.parquet.ParquetFile(path)
    same(file.read(), lake.sql(QUERY))
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    # What a column means goes with it.
    assert b"comment" in file.schema_arrow.field("sha256").metadata
    (count,) = duckdb.execute("SELECT count(DISTINCT event_id) FROM read_parquet(?)", [str(path)]).fetchone()
    assert count == len(lake.sql(QUERY))


def pyarrow_reads_an_arrow_stream_from_a_pipe_and_from_a_file():
    command = [WAYBILL, "--lake", lake.url, "sql", "--format", "arrow", QUERY]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    same(pyarrow.ipc.open_stream(io.BytesIO(data)).read_all(), lake.sql(QUERY))
    path = folder / "events.arrow"
    lake.waybill("sql", "--format", "arrow", "--output-file", str(path), QUERY)
    same(pyarrow.ipc.open_stream(path.read_bytes()).read_all(), lake.sql(QUERY))


def parquet_can_go_through_a_pipe():
    command = [WAYBILL, "--lake", lake.url, "sql", "--format", "parquet", QUERY]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    same(pyarrow.parquet.read_table(io.BytesIO(data)), lake.sql(QUERY))


def an_answer_without_rows_has_its_columns():
    path = folder / "none.parquet"
    lake.waybill("sql", "--format", "parquet", "--output-file", str(path), "SELECT sender FROM file_events WHERE false")
    table = pyarrow.parquet.read_table(path)
    assert (table.num_rows, table.column_names) == (0, ["sender"])
    command = [WAYBILL, "--lake", lake.url, "sql", "--format", "arrow", "SELECT 1 AS n WHERE false"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert pyarrow.ipc.open_stream(io.BytesIO(data)).read_all().column_names == ["n"]


def a_large_answer_has_several_row_groups_and_all_its_rows():
    path = folder / "large.parquet"
    query = "SELECT value, value % 7 AS day FROM range(1000000)"
    lake.waybill("sql", "--format", "parquet", "--output-file", str(path), query)
    assert pyarrow.parquet.ParquetFile(path).metadata.num_row_groups == 10
    found = duckdb.execute("SELECT count(*), sum(value), max(day) FROM read_parquet(?)", [str(path)]).fetchone()
    assert found == (1_000_000, 499_999_500_000, 6), found


def a_search_is_written_in_the_same_formats():
    path = folder / "search.parquet"
    lake.waybill("search", "--format", "parquet", "--output-file", str(path), "--columns", "event_id,sender")
    table = pyarrow.parquet.read_table(path)
    assert (table.column_names, table.num_rows) == (["event_id", "sender"], len(lake.sql(QUERY)))


def a_table_of_many_rows_keeps_its_widths():
    text = lake.waybill("sql", "SELECT value, 'x' AS x FROM range(25000)")
    lines = text.split("\n")[:-1]
    assert (len(lines), lines[0].split()) == (25_001, ["value", "x"]), lines[0]
    assert len({len(line) for line in lines}) == 1, {len(line) for line in lines}
    assert lines[-1].split() == ["24999", "x"]


CHECKS = [
    pyarrow_and_duckdb_read_a_parquet_file,
    pyarrow_reads_an_arrow_stream_from_a_pipe_and_from_a_file,
    parquet_can_go_through_a_pipe,
    an_answer_without_rows_has_its_columns,
    a_large_answer_has_several_row_groups_and_all_its_rows,
    a_search_is_written_in_the_same_formats,
    a_table_of_many_rows_keeps_its_widths,
]

if __name__ == "__main__":
    with simulate("--corpus", CORPUS, "--shift-dates", "now") as tenant, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lake = Lake(folder / "lake", tenant)
        lake.add(tenant)
        lake.run()
        run_checks(CHECKS)
