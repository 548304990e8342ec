"""Exports to an S3 server, read with the programs that people already have: `deltalake`, `pyarrow`, Python's own `csv`,
and the models of OCSF.

    exports.py
"""

import csv
import importlib
import io
import json
import logging
import subprocess
import tempfile
import time
from pathlib import Path

import boto3
import pyarrow.fs
import pyarrow.parquet
from deltalake import DeltaTable
from moto.server import ThreadedMotoServer

from support import WAYBILL, Lake, control, run_checks, simulate

BUCKET = "exports"
SECURITY_LAKE = ["--source", "waybill", "--region", "eu-central-1", "--account", "123456789012"]
VIEWS = ["file_events", "events", "EmailAttachmentInfo", "code42_file_events", "ecs_email", "ocsf_email_activity", "ocsf_email_file_activity"]

lake: Lake
tenant: dict
s3 = None
options: dict


def export(name, form, *arguments, codes=(0,)):
    report = lake.waybill(
        "export", "--to", f"s3://{BUCKET}/{name}", "--format", form, *arguments, "--output", "json", codes=codes
    )
    return json.loads(report) if report else None


def files(name):
    """The exported files below a target, by their path."""
    listing = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/")
    paths = [found["Key"] for found in listing.get("Contents", []) if "/_" not in found["Key"]]
    return {path: s3.get_object(Bucket=BUCKET, Key=path)["Body"].read() for path in paths}


def ids(rows):
    return sorted(row["event_id"] for row in rows)


def all_ids():
    return ids(lake.sql("SELECT event_id FROM file_events"))


def one_more_file():
    number = time.time_ns()
    mail = f"From: a@corpus.example\nMessage-ID: <{number}@x>\nContent-Type: image/png\n\n{number}"
    control(tenant, "messages?sent=now", mail)
    # A window ends with the last whole second.
    time.sleep(1)
    assert lake.run(codes=[0, 3])["events"] == 1


def a_delta_table_grows_with_each_export():
    assert export("delta", "delta", "--file-mb", "1")["rows"] == len(all_ids())
    one_more_file()
    assert export("delta", "delta", "--file-mb", "1")["rows"] == 1
    assert export("delta", "delta", "--file-mb", "1")["rows"] == 0
    table = DeltaTable(f"s3://{BUCKET}/delta", storage_options=options)
    assert ids(table.to_pyarrow_table().to_pylist()) == all_ids()
    # The log's statistics let a reader leave files out, and lose it nothing.
    newest = lake.sql("SELECT max(observed_at) AS newest FROM file_events")[0]["newest"]
    pruned = table.to_pyarrow_table(filters=[("observed_at", ">=", pyarrow.scalar(newest).cast(pyarrow.timestamp("us", "UTC")))])
    assert pruned.num_rows == 1, pruned


def every_view_is_a_delta_table():
    for view in VIEWS:
        rows = export(f"views/{view}", "delta", "--view", view)["rows"]
        table = DeltaTable(f"s3://{BUCKET}/views/{view}", storage_options=options).to_pyarrow_table()
        assert table.num_rows == rows > 0, view
        assert table.column_names == list(lake.sql(f'SELECT * FROM "{view}" LIMIT 1')[0]), view


def parquet_and_csv_and_ndjson_hold_the_same_rows():
    for form in ("parquet", "csv", "ndjson"):
        export(form, form)
    fs = pyarrow.fs.S3FileSystem(
        endpoint_override=options["AWS_ENDPOINT_URL"], access_key="anybody", secret_key="anything", region="us-east-1"
    )
    found = pyarrow.parquet.ParquetDataset([path for path in map(lambda path: f"{BUCKET}/{path}", files("parquet"))], filesystem=fs)
    assert ids(found.read().to_pylist()) == all_ids()
    texts = [body.decode() for body in files("csv").values()]
    assert ids(row for text in texts for row in csv.DictReader(io.StringIO(text))) == all_ids()
    lines = [line for body in files("ndjson").values() for line in body.decode().split("\n") if line]
    assert ids(map(json.loads, lines)) == all_ids()


def two_exports_at_once_double_nothing():
    command = [WAYBILL, "--lake", lake.url, "export", "--to", f"s3://{BUCKET}/race", "--format", "delta", "--file-mb", "1"]
    for _ in range(3):
        both = [subprocess.Popen(command, env=lake.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
        told = [(process.communicate()[1].decode(), process.returncode) for process in both]
        assert all(code in (0, 11) for _, code in told), told
        assert any(code == 0 for _, code in told), told
        one_more_file()
    export("race", "delta", "--file-mb", "1")
    table = DeltaTable(f"s3://{BUCKET}/race", storage_options=options)
    assert ids(table.to_pyarrow_table().to_pylist()) == all_ids()


def given(value):
    """A document without what is not known."""
    if isinstance(value, dict):
        return {name: given(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [given(each) for each in value]
    return value


def events_of_ocsf_are_what_its_models_say():
    for view, version, model in [
        ("ocsf_email_activity", "v1_5_0", "EmailActivity"),
        ("ocsf_email_file_activity", "v1_1_0", "EmailFileActivity"),
    ]:
        model = getattr(importlib.import_module(f"ocsf.{version}.events"), model)
        rows = lake.sql(f"SELECT * FROM {view}")
        for row in rows:
            model.model_validate(given(row))
        try:
            model.model_validate({**given(rows[0]), "activity_id": "no number"})
        except Exception:
            pass
        else:
            raise AssertionError(f"the model of {view} takes anything")


def security_lake_gets_a_class_and_a_day_a_file():
    export("", "ocsf-parquet", *SECURITY_LAKE)
    found = {path: body for path, body in files("ext/waybill").items() if path.endswith(".parquet")}
    assert found
    for path, body in found.items():
        assert path.startswith("ext/waybill/region=eu-central-1/accountId=123456789012/eventDay="), path
        file = pyarrow.parquet.ParquetFile(io.BytesIO(body))
        assert {file.metadata.row_group(0).column(0).compression} == {"ZSTD"}
        rows = file.read().to_pylist()
        assert {row["class_uid"] for row in rows} == {4011}
        assert {row["time_dt"].strftime("%Y%m%d") for row in rows} == {path.split("eventDay=")[1].split("/")[0]}


CHECKS = [
    a_delta_table_grows_with_each_export,
    every_view_is_a_delta_table,
    parquet_and_csv_and_ndjson_hold_the_same_rows,
    two_exports_at_once_double_nothing,
    events_of_ocsf_are_what_its_models_say,
    security_lake_gets_a_class_and_a_day_a_file,
]

if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
    }
    s3 = boto3.client(
        "s3", endpoint_url=options["AWS_ENDPOINT_URL"], aws_access_key_id="anybody", aws_secret_access_key="anything", region_name="us-east-1"
    )
    s3.create_bucket(Bucket=BUCKET)
    with simulate("--generate", "users=12,messages=400,days=5,size=1000,seed=7") as tenant, tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake", tenant)
        lake.environment.update(options)
        lake.add(tenant, since="7d")
        lake.run(codes=[0, 3])
        run_checks(CHECKS)
    server.stop()
