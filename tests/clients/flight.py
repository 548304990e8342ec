"""Arrow Flight SQL as drivers speak it: ADBC's driver and pyarrow's client, against `waybill serve --flight`."""

import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pyarrow.flight as flight
from adbc_driver_flightsql import DatabaseOptions

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
local = stay(serve(lake, "--flight", "127.0.0.1:0"))["flight"]

# The same for a network: with a certificate, and for tokens only.
subprocess.run(
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
     "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
     "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
    check=True, capture_output=True,
)  # fmt: skip
analyst, viewer, narrow = token("BI", "analyst"), token("Eye", "viewer"), token("Narrow", "analyst")
config = folder / "serve.toml"
config.write_text("[[policy]]\nwho = ['token:Narrow']\nhidden_columns = ['subject']\n")
public = stay(
    serve(lake, "--flight", "0.0.0.0:0", "--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"),
          "--config", str(config))
)["flight"].replace("0.0.0.0", "localhost")  # fmt: skip
authority = (folder / "cert.pem").read_text()


def connect(secret=None, **options):
    if not secret and not options:
        return adbc.connect(local)
    given = {DatabaseOptions.TLS_ROOT_CERTS.value: authority}
    if secret:
        given[DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {secret}"
    return adbc.connect(public, db_kwargs=given | options)


def ask(connection, statement, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetch_arrow_table()


def refuses(act, *texts):
    try:
        act()
    except (adbc.Error, pa.ArrowException) as error:
        shown = str(error)
        assert any(text in shown for text in texts), f"{texts} not in {shown}"
        return shown
    raise AssertionError("it was not refused")


def an_answer_is_what_the_shell_says():
    with connect() as connection:
        table = ask(connection, "SELECT * FROM file_events ORDER BY event_id")
        rows = lake.sql("SELECT * FROM file_events ORDER BY event_id")
        assert table.num_rows == len(rows) > 30
        for name in table.column_names:
            if name in ("observed_at", "inserted_at", "event_date"):
                continue
            assert table[name].to_pylist() == [row[name] for row in rows], name
        assert str(table.schema.field("observed_at").type) == "timestamp[us, tz=UTC]"
        assert ask(connection, "SELECT 1 AS one WHERE false").num_rows == 0
        risk = ask(connection, "SELECT risk_severity, count(*) AS n FROM events GROUP BY 1")
        assert sum(risk["n"].to_pylist()) == len(rows)


def values_are_bound_and_never_become_sql():
    row = lake.sql("SELECT * FROM file_events WHERE sha256 IS NOT NULL LIMIT 1")[0]
    with connect() as connection:
        found = ask(connection, "SELECT event_id FROM file_events WHERE sha256 = $1", (row["sha256"],))
        assert row["event_id"] in found["event_id"].to_pylist()
        both = ask(
            connection, "SELECT event_id FROM file_events WHERE sha256 = $1 AND file_size_bytes >= $2", (row["sha256"], 0)
        )
        assert both.num_rows == found.num_rows
        for hostile in ("' OR '1'='1", "x'; DROP TABLE file_events; --", "\\", "%", "\u0000"):
            assert ask(connection, "SELECT * FROM file_events WHERE file_name = $1", (hostile,)).num_rows == 0
        refuses(lambda: ask(connection, "SELECT $1 + $2", (1,)), "parameters", "arameter")
        refuses(lambda: ask(connection, "SELECT event_id FROM file_events WHERE file_size_bytes > $1", ("x",)), "query-invalid")


def catalogs_show_tables_columns_and_what_they_mean():
    with connect() as connection:
        objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        (catalog,) = objects
        (schema,) = catalog["catalog_db_schemas"]
        tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
        assert catalog["catalog_name"] == "waybill" and schema["db_schema_name"] == "public"
        assert {"file_events", "runs", "gaps", "searches", "events"} <= set(tables)
        assert tables["file_events"]["table_type"] == "TABLE"
        assert "sha256" in {column["column_name"] for column in tables["file_events"]["table_columns"]}
        assert set(connection.adbc_get_table_types()) == {"TABLE", "VIEW"}
        described = connection.adbc_get_table_schema("file_events", db_schema_filter="public")
        assert described.field("sha256").metadata[b"ARROW:FLIGHT:SQL:REMARKS"].startswith(b"SHA-256")
        info = connection.adbc_get_info()
        assert info["vendor_name"] == "Waybill"


def what_nobody_may_ask_is_refused():
    with connect() as connection:
        for statement in REFUSED:
            began = time.monotonic()
            shown = refuses(lambda: ask(connection, statement), "(query-refused)", "(query-invalid)", "(query-too-large)",
                            "larger than", "exceed", "must call SetSqlQuery")  # fmt: skip
            assert len(shown) < 3_000 and "panic" not in shown, shown
            assert time.monotonic() - began < 100, statement[:60]
        refuses(lambda: connection.cursor().adbc_ingest("t", pa.table({"a": [1]})), "refused", "query-refused")
        with connection.cursor() as cursor:
            refuses(lambda: cursor.executemany("SELECT $1", [(1,), (2,)]), "one row", "refused")
        assert ask(connection, "SELECT count(*) AS n FROM file_events")["n"].to_pylist()[0] > 30
    assert not Path("/tmp/waybill-stolen.csv").exists()


def only_tokens_get_in_from_a_network_and_only_over_tls():
    with connect(analyst) as connection:
        assert ask(connection, "SELECT count(*) AS n FROM file_events")["n"].to_pylist()[0] > 30
    with connect(username="BI", password=analyst) as connection:
        assert ask(connection, "SELECT 1 AS one")["one"].to_pylist() == [1]
    for nobody in ("wb_" + "x" * 43, "", "wb_", analyst[:-1] + ("x" if analyst[-1] != "x" else "y")):
        refuses(lambda: ask(connect(nobody or " "), "SELECT 1"), "not-signed-in", "nauthenticated", "Unauthenticated")
    refuses(lambda: ask(connect(username="Other", password=analyst), "SELECT 1"), "not-signed-in", "nauthenticated")
    refuses(lambda: ask(connect(viewer), "SELECT 1"), "not-allowed")
    refuses(lambda: ask(adbc.connect(public.replace("grpc+tls", "grpc")), "SELECT 1"), "navailable", "closed", "reset", "EOF")
    refuses(lambda: ask(adbc.connect(public), "SELECT 1"), "certificate", "tls")
    lake.waybill("serve", "token", "remove", "--name", "Eye")
    refuses(lambda: ask(connect(viewer), "SELECT 1"), "not-signed-in")


def a_ticket_gives_what_its_presenter_may_see():
    client = flight.FlightClient(public, tls_root_certs=authority.encode())
    as_ = lambda secret: flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {secret}".encode())])  # noqa: E731
    # CommandStatementQuery in an Any, as a driver writes it.
    query = b"SELECT DISTINCT subject FROM file_events WHERE subject IS NOT NULL"
    inner = b"\x0a" + bytes([len(query)]) + query
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    command = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(inner)]) + inner
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command), as_(analyst))
    ticket = info.endpoints[0].ticket
    assert client.do_get(ticket, as_(analyst)).read_all().num_rows > 5
    assert client.do_get(ticket, as_(narrow)).read_all().num_rows == 0, "the column is hidden from them"
    refuses(lambda: client.do_get(ticket).read_all(), "not-signed-in")
    for strange in (b"", b"x" * 100, ticket.ticket[:-3], os.urandom(300)):
        refuses(lambda: client.do_get(flight.Ticket(strange), as_(analyst)).read_all(), "")
    refuses(lambda: client.do_action(flight.Action("Nonsense", b"x"), as_(analyst)).__next__(), "")
    assert client.do_get(ticket, as_(analyst)).read_all().num_rows > 5, "the server is alive"


def who_goes_away_frees_the_place():
    slow = "SELECT count(*) FROM generate_series(1, 100000000000)"
    for _ in range(10):
        connection = adbc.connect(local)
        cursor = connection.cursor()
        thread = threading.Thread(target=lambda: try_(lambda: cursor.execute(slow)), daemon=True)
        thread.start()
        time.sleep(0.3)
        cursor.adbc_cancel()
        thread.join(20)
        assert not thread.is_alive(), "a cancelled query goes on"
    with connect() as connection:
        began = time.monotonic()
        assert ask(connection, "SELECT 1 AS one")["one"].to_pylist() == [1]
        assert time.monotonic() - began < 20


def try_(act):
    try:
        return act()
    except Exception as error:
        return error


def every_statement_is_on_record_with_its_values():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        rows = lake.sql("SELECT * FROM searches WHERE surface = 'flight'")
        texts = [row["statement"] for row in rows]
        is_bound = any("WHERE sha256 = $1 -- values: " in text for text in texts)
        is_refused = any(row["statement"] == "DROP TABLE file_events" and row["outcome"] == "refused" for row in rows)
        if is_bound and is_refused and any(row["who"] == "token:BI" for row in rows):
            return
        time.sleep(1)
    raise AssertionError(f"not recorded: {texts[-5:]}")


run_checks(
    [
        an_answer_is_what_the_shell_says,
        values_are_bound_and_never_become_sql,
        catalogs_show_tables_columns_and_what_they_mean,
        what_nobody_may_ask_is_refused,
        only_tokens_get_in_from_a_network_and_only_over_tls,
        a_ticket_gives_what_its_presenter_may_see,
        who_goes_away_frees_the_place,
        every_statement_is_on_record_with_its_values,
    ]
)
