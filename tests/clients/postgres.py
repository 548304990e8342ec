"""The Postgres wire protocol as people's programs speak it: psql, psycopg, SQLAlchemy, ADBC, JDBC and what BI tools ask."""

import json
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlparse

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import sqlalchemy
from sqlalchemy import func, select

from hostile import REFUSED
from support import CORPUS, Lake, run_checks, serve, simulate

folder = Path(tempfile.mkdtemp())
held = []


def stay(manager):
    """Enters what lives as long as the process."""
    held.append(manager)
    return manager.__enter__()


def token(name, role):
    made = lake.waybill("serve", "token", "add", "--name", name, "--role", role, "--output", "json")
    return json.loads(made)["token"]


tenant = stay(simulate("--corpus", CORPUS, "--shift-dates", "now"))
lake = Lake(folder / "lake", tenant)
lake.add(tenant)
lake.run()
local = urlparse(stay(serve(lake, "--postgres", "127.0.0.1:0"))["postgres"])
subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
     "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
     "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
    check=True, capture_output=True,
)  # fmt: skip
analyst, viewer, narrow = token("BI", "analyst"), token("Eye", "viewer"), token("Narrow", "analyst")
config = folder / "serve.toml"
config.write_text("[[policy]]\nwho = ['token:Narrow']\nhidden_columns = ['subject']\n")
public = urlparse(
    stay(
        serve(lake, "--postgres", "0.0.0.0:0", "--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"),
              "--config", str(config))
    )["postgres"]
)  # fmt: skip
rows = lake.sql("SELECT * FROM file_events ORDER BY event_id")


def connect(**options):
    return psycopg.connect(host="127.0.0.1", port=local.port, dbname="waybill", user="me", **options)


def connect_publicly(user, password, **options):
    options = {"sslmode": "verify-full", "sslrootcert": str(folder / "cert.pem")} | options
    return psycopg.connect(
        host="localhost", port=public.port, dbname="waybill", user=user, password=password, connect_timeout=20, **options
    )


def psql(*commands):
    arguments = [word for command in commands for word in ("-c", command)]
    environment = os.environ | {"PAGER": "cat", "PGCONNECT_TIMEOUT": "20"}
    done = subprocess.run(
        ["psql", "-X", "-h", "127.0.0.1", "-p", str(local.port), "-U", "me", "waybill", *arguments],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout, done.stderr


def psql_describes_what_there_is():
    for command in ("\\d", "\\dt", "\\dv", "\\di", "\\ds", "\\dn", "\\dn+", "\\l", "\\du", "\\dg", "\\dp", "\\z", "\\df", "\\dx",
                    "\\db", "\\dt+", "\\dv+", "\\d file_events", "\\d+ file_events", "\\d+ events", "\\d runs", "\\conninfo",
                    "\\dm", "\\dE", "\\des", "\\dRp", "\\dy", "\\dC", "\\sf", "\\timing", "\\l+"):  # fmt: skip
        out, error = psql(command)
        assert "ERROR" not in error or command == "\\sf", f"{command}: {error}"
    out, _ = psql("\\d+ file_events")
    assert "timestamp with time zone" in out and "text[]" in out and "SHA-256 of the file's bytes" in out
    out, _ = psql("\\dt+")
    assert "One row per attachment" in out
    out, error = psql("\\timing", "SELECT count(*) FROM file_events; SELECT 'a;b' AS two", "\\d nowhere")
    assert f" {len(rows)}\n" in out and "a;b" in out and "Time:" in out and "Did not find" in error


def psycopg_reads_every_column_in_text_and_in_binary():
    with connect() as connection:
        for binary in (False, True):
            with connection.cursor(binary=binary, row_factory=psycopg.rows.dict_row) as cursor:
                found = cursor.execute("SELECT * FROM file_events ORDER BY event_id").fetchall()
            assert len(found) == len(rows)
            for mine, theirs in zip(rows, found):
                for name, value in mine.items():
                    other = theirs[name]
                    if name in ("observed_at", "inserted_at"):
                        assert other.isoformat().replace("+00:00", "")[:19] == value[:19], name
                    elif name == "event_date":
                        assert other.isoformat() == value
                    else:
                        assert other == value, (name, binary, other, value)


def parameters_are_values_whatever_is_in_them():
    row = next(row for row in rows if row["sha256"])
    with connect() as connection:
        found = connection.execute("SELECT event_id FROM file_events WHERE sha256 = %s", (row["sha256"],)).fetchall()
        assert (row["event_id"],) in found
        found = connection.execute(
            "SELECT count(*) FROM file_events WHERE file_size_bytes >= %s AND observed_at > %s", (0, "2000-01-01T00:00:00Z")
        ).fetchone()
        assert found[0] == len([row for row in rows if row["file_size_bytes"] is not None and row["observed_at"] > "2000"])
        for hostile in ("' OR '1'='1", "x'; DROP TABLE file_events; --", "\\", "%_", "$1"):
            found = connection.execute("SELECT * FROM file_events WHERE file_name = %s", (hostile,)).fetchall()
            assert found == []
        many = connection.execute(
            f"SELECT count(*) FROM file_events WHERE event_id IN ({', '.join(['%s'] * 900)})", ["x"] * 900
        ).fetchone()
        assert many == (0,)
        connection.prepare_threshold = 0
        for _ in range(3):
            assert connection.execute("SELECT count(*) FROM file_events WHERE sender <> %s", ("x",)).fetchone()[0] > 30


def a_session_sees_what_comes_and_a_transaction_does_not():
    connection = connect(autocommit=True)
    before = connection.execute("SELECT count(*) FROM searches").fetchone()[0]
    deadline = time.monotonic() + 40
    while connection.execute("SELECT count(*) FROM searches").fetchone()[0] == before:
        assert time.monotonic() < deadline, "nothing new is seen"
        time.sleep(1)
    with connection.transaction():
        seen = connection.execute("SELECT count(*) FROM searches").fetchone()[0]
        time.sleep(12)
        assert connection.execute("SELECT count(*) FROM searches").fetchone()[0] == seen
    with connection.transaction():
        assert connection.execute("SELECT count(*) FROM searches").fetchone()[0] > seen


def a_failed_transaction_takes_nothing_until_it_ends():
    with connect() as connection:
        try:
            connection.execute("SELECT nothing FROM file_events")
        except psycopg.errors.UndefinedColumn:
            pass
        try:
            connection.execute("SELECT 1")
        except psycopg.errors.InFailedSqlTransaction:
            pass
        else:
            raise AssertionError("it went on")
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def sqlalchemy_reflects_tables_and_their_comments():
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://me@127.0.0.1:{local.port}/waybill")
    inspector = sqlalchemy.inspect(engine)
    assert {"file_events", "runs", "gaps"} <= set(inspector.get_table_names())
    assert "events" in inspector.get_view_names()
    columns = {column["name"]: column for column in inspector.get_columns("file_events")}
    assert columns["sha256"]["comment"].startswith("SHA-256") and columns["event_id"]["nullable"] is False
    assert "One row per attachment" in inspector.get_table_comment("file_events")["text"]
    assert inspector.get_pk_constraint("file_events")["constrained_columns"] == []
    assert inspector.get_indexes("file_events") == [] and inspector.get_foreign_keys("file_events") == []
    table = sqlalchemy.Table("file_events", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        counted = connection.execute(
            select(table.c.file_category, func.count()).where(table.c.file_size_bytes > 100).group_by(table.c.file_category)
        ).all()
        assert sum(count for _, count in counted) > 20
        with_array = connection.execute(select(table.c.recipients).limit(1)).scalar_one()
        assert isinstance(with_array, list)


def adbc_reads_arrow_over_the_wire():
    # The driver reads by COPY unless it is told not to, and COPY is refused here.
    with adbc.connect(f"postgresql://me@127.0.0.1:{local.port}/waybill") as connection:
        with connection.cursor(adbc_stmt_kwargs={"adbc.postgresql.use_copy": False}) as cursor:
            cursor.execute("SELECT event_id, file_size_bytes, observed_at FROM file_events ORDER BY event_id")
            table = cursor.fetch_arrow_table()
            assert table["event_id"].to_pylist() == [row["event_id"] for row in rows]
            assert table["file_size_bytes"].to_pylist() == [row["file_size_bytes"] for row in rows]


def jdbc_reads_metadata_and_rows_in_portions():
    def run(*arguments):
        command = ["java", "-cp", "/usr/share/java/postgresql.jar", str(Path(__file__).parent / "Jdbc.java"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(f"jdbc:postgresql://127.0.0.1:{local.port}/waybill?sslmode=disable", "me")
    expected = len([row for row in rows if row["file_size_bytes"] and row["file_size_bytes"] >= 1 and row["sender"]])
    assert done.stdout == f"rows {expected}\n", done.stdout + done.stderr
    done = run(f"jdbc:postgresql://localhost:{public.port}/waybill", "BI", analyst, str(folder / "cert.pem"))
    assert done.stdout == f"rows {expected}\n", done.stdout + done.stderr


TOOLS = {
    "Metabase: schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
    "Metabase: tables": "SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, d.description AS description "
    "FROM pg_catalog.pg_class AS c INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid "
    "LEFT JOIN pg_catalog.pg_description AS d ON c.oid = d.objoid AND d.objsubid = 0 "
    "WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND n.nspname = 'public' ORDER BY 1, 2",
    "Metabase: columns": "SELECT c.column_name, c.data_type, c.ordinal_position, c.table_schema, c.table_name "
    "FROM information_schema.columns AS c WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' "
    "ORDER BY c.table_schema, c.table_name, c.ordinal_position",
    "Grafana: tables": "SELECT CASE WHEN quote_ident(table_schema) = 'public' THEN quote_ident(table_name) "
    "ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" FROM information_schema.tables "
    "WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog') ORDER BY 1",
    "Grafana: columns": "SELECT quote_ident(column_name) AS \"column\", data_type AS \"type\" FROM information_schema.columns "
    "WHERE quote_ident(table_name) = 'file_events'",
    "Grafana: version": "SELECT current_setting('server_version_num')::int / 100 AS version",
    "DBeaver: database": "SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datname = 'waybill'",
    "DBeaver: schemas": "SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n "
    "LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = n.oid AND d.objsubid = 0 ORDER BY nspname",
    "DBeaver: tables": "SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_expr "
    "FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0 "
    "AND d.classoid = 1259 WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'public') "
    "AND c.relkind NOT IN ('i', 'I', 'c')",
    "DBeaver: columns": "SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def_value, dsc.description "
    "FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid = c.oid) "
    "LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid = ad.adrelid AND a.attnum = ad.adnum) "
    "LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid) "
    "WHERE NOT a.attisdropped AND c.relname = 'file_events' ORDER BY a.attnum",
    "DBeaver: session": "SELECT version(), current_schema(), session_user, current_database()",
    "pgAdmin: recovery": "SELECT oid, datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY datname",
    "Superset: now": "SELECT now()",
}


def tools_find_what_they_ask_the_catalog():
    failed = []
    with connect(autocommit=True) as connection:
        for name, statement in TOOLS.items():
            try:
                found = connection.execute(statement).fetchall()
                assert found, "no rows"
            except (psycopg.Error, AssertionError) as error:
                failed.append(f"{name}: {error}")
    assert not failed, "\n".join(failed)


def what_nobody_may_ask_is_refused():
    with connect(autocommit=True) as connection:
        for statement in REFUSED:
            if "\x00" in statement or not statement:
                continue  # The library does not send it; the next check does.
            try:
                connection.execute(statement.replace("%", "%%"))
            except psycopg.Error as error:
                assert error.diag.sqlstate not in (None, "XX000"), f"{statement[:60]}: {error}"
                assert len(str(error)) < 3_000 and "query-" in (error.diag.message_detail or ""), f"{statement[:60]}: {error}"
                assert error.diag.message_hint
            else:
                raise AssertionError(f"it was answered: {statement[:60]}")
            assert connection.execute("SELECT 1").fetchone() == (1,)
        for harmless in ("SET application_name = 'x'", "SET statement_timeout = 0", "BEGIN", "COMMIT", "DISCARD ALL",
                         "SHOW server_version", "SHOW transaction_isolation", "RESET ALL"):  # fmt: skip
            connection.execute(harmless)
    assert not Path("/tmp/waybill-stolen.csv").exists()


def broken_messages_end_a_connection_and_not_the_server():
    startup = b"\x00\x03\x00\x00user\x00me\x00database\x00waybill\x00\x00"
    good = struct.pack("!i", len(startup) + 4) + startup
    query = lambda text: b"Q" + struct.pack("!i", len(text) + 4) + text  # noqa: E731
    for message in (b"", b"\x00", b"\xff" * 100, struct.pack("!ii", 8, 196608), struct.pack("!i", 2_000_000_000) + b"x" * 100,
                    b"GET / HTTP/1.1\r\n\r\n", good + b"\xff" * 50, good + query(b"\x00"), good + query(b"SELECT 1"),
                    good + b"Q" + struct.pack("!i", 2_000_000_000) + b"x", good + b"B\x00\x00\x00\x04",
                    good + b"P" + struct.pack("!i", 10) + b"\x00\x00\x00\x00\x00\x00", good + query(b"\xff\xfe\x00")):  # fmt: skip
        with socket.create_connection(("127.0.0.1", local.port), timeout=5) as stream:
            stream.sendall(message)
            stream.shutdown(socket.SHUT_WR)
            try:
                while stream.recv(65536):
                    pass
            except OSError:
                pass
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM file_events").fetchone() == (len(rows),)


def only_tokens_get_in_from_a_network_and_only_over_tls():
    with connect_publicly("BI", analyst) as connection:
        assert connection.execute("SELECT count(*) FROM file_events").fetchone() == (len(rows),)
        assert connection.info.ssl_in_use if hasattr(connection.info, "ssl_in_use") else True
    with connect_publicly("Narrow", narrow) as connection:
        assert connection.execute("SELECT count(subject) FROM file_events").fetchone() == (0,), "the column is hidden"

    def refuses(state, *arguments, **options):
        try:
            connect_publicly(*arguments, **options)
        except psycopg.OperationalError as error:
            assert state in str(error), error
        else:
            raise AssertionError(f"{arguments} got in")

    refuses("not known", "BI", analyst[:-1] + ("x" if analyst[-1] != "x" else "y"))
    refuses("not known", "Nobody", analyst)
    refuses("needs the role", "Eye", viewer)
    refuses("TLS only", "BI", analyst, sslmode="disable", sslrootcert="")
    refuses("certificate", "BI", analyst, sslrootcert="/dev/null")
    lake.waybill("serve", "token", "remove", "--name", "Narrow")
    refuses("not known", "Narrow", narrow)


def who_goes_away_or_cancels_frees_the_place():
    slow = "SELECT count(*) FROM generate_series(1, 100000000000)"
    for _ in range(5):
        connection = connect()
        thread = threading.Thread(target=lambda c=connection: try_(lambda: c.execute(slow)), daemon=True)
        thread.start()
        time.sleep(0.4)
        connection.cancel_safe()
        thread.join(20)
        assert not thread.is_alive(), "a cancelled query goes on"
        connection.close()
    for _ in range(9):
        process = subprocess.Popen(
            ["psql", "-X", "-h", "127.0.0.1", "-p", str(local.port), "-U", "me", "waybill", "-c", slow],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.3)
        process.kill()
        process.wait()
    began = time.monotonic()
    with connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert time.monotonic() - began < 30


def try_(act):
    try:
        return act()
    except Exception as error:
        return error


def every_statement_is_on_record():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = lake.sql("SELECT who, statement, outcome FROM searches WHERE surface = 'postgres'")
        texts = [row["statement"] for row in found]
        is_bound = any("WHERE sha256 = $1 -- values: " in text for text in texts)
        is_refused = any(row["statement"] == "DROP TABLE file_events" and row["outcome"] == "refused" for row in found)
        if is_bound and is_refused and any(row["who"] == "token:BI" for row in found):
            return
        time.sleep(1)
    raise AssertionError(f"not recorded: {texts[-5:]}")


run_checks(
    [
        psql_describes_what_there_is,
        psycopg_reads_every_column_in_text_and_in_binary,
        parameters_are_values_whatever_is_in_them,
        a_session_sees_what_comes_and_a_transaction_does_not,
        a_failed_transaction_takes_nothing_until_it_ends,
        sqlalchemy_reflects_tables_and_their_comments,
        adbc_reads_arrow_over_the_wire,
        jdbc_reads_metadata_and_rows_in_portions,
        tools_find_what_they_ask_the_catalog,
        what_nobody_may_ask_is_refused,
        broken_messages_end_a_connection_and_not_the_server,
        only_tokens_get_in_from_a_network_and_only_over_tls,
        who_goes_away_or_cancels_frees_the_place,
        every_statement_is_on_record,
    ]
)
