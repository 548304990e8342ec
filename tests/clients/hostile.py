"""Statements that nobody may ask, on any surface: each must be refused with a clear error, and the server stay alive."""

REFUSED = [
    # Changes of any kind.
    "DROP TABLE file_events",
    "DELETE FROM file_events",
    "UPDATE file_events SET sender = 'x'",
    "INSERT INTO file_events SELECT * FROM file_events",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "TRUNCATE file_events",
    "ALTER TABLE file_events ADD COLUMN x INT",
    # Files and other places.
    "COPY file_events TO '/tmp/waybill-stolen.csv'",
    "COPY (SELECT 1) TO 'http://127.0.0.1:1/x.parquet' STORED AS PARQUET",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'http://127.0.0.1:1/x.csv'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    # Settings that lift limits.
    "SET datafusion.runtime.memory_limit = '100G'",
    "SET datafusion.execution.batch_size = 1",
    # More than one may take.
    "SELECT repeat('x', 2000000000)",
    "SELECT array_repeat('x', 1000000000)",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT '" + "x" * 2_000_000 + "'",
    f"SELECT array_agg('{'x' * 1000}' || value) FROM generate_series(1, 10000000000)",
    # What is no statement.
    "",
    "SELEC 1",
    "SELECT",
    "\x00",
    "SELECT * FROM file_events WHERE file_name = $$",
    "SELECT nothing FROM file_events",
    "SELECT * FROM nowhere",
]
