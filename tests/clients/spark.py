"""Asks a distributed engine that speaks Spark SQL (`pysail`, in its local-cluster mode) the questions of the cookbook that
are standard SQL, over the same Delta tables, and compares the answers with `waybill sql`.

    spark.py
"""

import json
import math
import os
import re
import tempfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

os.environ["SAIL_MODE"] = "local-cluster"

from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession

from support import Lake, run_checks, simulate

COOKBOOK = Path(__file__).parent.parent.parent / "docs" / "cookbook.md"
TABLES = ["file_events", "runs", "gaps"]

# What a query says that only Waybill has: its functions, the view with the risk, times that are counted from now, and
# DataFusion's own ways of writing lists and formats.
OWN = re.compile(
    r"domain_of|is_free_mail|day_in|hour_in|\bevents\b|now\(\)|current_date|array_agg|unnest|date_bin|to_char|searches", re.I
)

lake: Lake
spark: SparkSession


def questions():
    for section in COOKBOOK.read_text().split("\n## ")[1:]:
        name = section.split("\n", 1)[0]
        yield name, section.split("```sql\n")[1].split("```")[0].strip().rstrip(";")


def plain(value):
    """A value as both engines' rows have it."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(timespec="microseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return int(value) if math.isclose(value, round(value), abs_tol=1e-9) else round(value, 6)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, str):
        try:
            return plain(datetime.fromisoformat(value)) if re.match(r"\d{4}-\d\d-\d\dT", value) else value
        except ValueError:
            return value
    return value


def rows(found):
    return sorted(json.dumps([plain(value) for value in row], sort_keys=True) for row in found)


def the_portable_questions_of_the_cookbook_have_the_same_answers():
    asked, differ = [], []
    for name, statement in questions():
        if OWN.search(statement):
            continue
        try:
            theirs = rows(list(row) for row in spark.sql(statement).collect())
        except Exception as error:
            print("DEBUG", name, str(error)[:300]); continue
        ours = rows(list(row.values()) for row in lake.sql(statement))
        asked.append(f"{name} ({len(ours)} rows)")
        if ours != theirs:
            differ.append((name, ours[:3], theirs[:3]))
    print("    " + "\n    ".join(asked))
    assert not differ, differ
    assert len(asked) >= 10, asked


def a_filter_has_sql_that_spark_takes():
    for search in ["file.name is *A* and file.sizeInBytes > 10", "user.email exists or file.category is any (Pdf, Image)"]:
        statement = lake.waybill("search", "--where", search, "--begin", "2000-01-01", "--show-sql")
        theirs = rows(list(row.asDict()[name] for name in ("event_id", "file_name")) for row in spark.sql(statement).collect())
        ours = rows([row["event_id"], row["file_name"]] for row in lake.sql(statement))
        assert ours and ours == theirs, (statement, len(ours), len(theirs))


CHECKS = [the_portable_questions_of_the_cookbook_have_the_same_answers, a_filter_has_sql_that_spark_takes]

if __name__ == "__main__":
    with simulate("--generate", "users=12,messages=400,days=5,size=1000,seed=7") as tenant, tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake", tenant)
        lake.add(tenant, since="7d")
        lake.run(codes=[0, 3])
        server = SparkConnectServer("127.0.0.1", 0)
        server.start(background=True)
        _, port = server.listening_address
        spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        for table in TABLES:
            spark.read.format("delta").load(str(Path(lake.url) / table)).createOrReplaceTempView(table)
        run_checks(CHECKS)
        server.stop()
