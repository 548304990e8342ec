"""Asks a distributed engine that speaks Spark SQL (`pysail`, in its local-cluster mode) the questions of the cookbook that
are standard SQL, over the Delta tables of a lake, and compares the answers with `waybill sql`.

    spark.py LAKE
"""

import json
import math
import os
import re
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

os.environ["SAIL_MODE"] = "local-cluster"

from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession

from support import Lake, run_checks

COOKBOOK = Path(__file__).parent.parent.parent / "docs" / "cookbook.md"
TABLES = ["file_events", "gaps", "searches"]

# Questions to which no row is the usual answer.
MAY_BE_EMPTY = ["23. Is anything missing?"]

lake: Lake
spark: SparkSession


def portable_questions():
    for section in COOKBOOK.read_text().split("\n## ")[1:]:
        if "\nPortable." in section:
            yield section.split("\n", 1)[0], section.split("```sql\n")[1].split("```")[0].strip().rstrip(";")


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
    differ = []
    for name, statement in portable_questions():
        # `waybill sql` records what it was asked, so the table of searches grows with each question.
        register("searches")
        theirs = rows(spark.sql(statement).collect())
        ours = rows(row.values() for row in lake.sql(statement))
        print(f"    {name}: {len(theirs)} rows")
        if ours != theirs or (not ours and name not in MAY_BE_EMPTY):
            differ.append((name, ours[:3], theirs[:3]))
    assert not differ, differ


def a_filter_has_sql_that_spark_takes():
    for search in ["file.name is *A* and file.sizeInBytes > 10", "user.email exists or file.category is any (Pdf, Image)"]:
        statement = lake.waybill(
            "search", "--where", search, "--begin", "2000-01-01", "--columns", "event_id,file_name", "--show-sql"
        )
        theirs = rows(spark.sql(statement).collect())
        ours = rows(row.values() for row in lake.sql(statement))
        assert ours and ours == theirs, (statement, len(ours), len(theirs))


def register(table):
    """Lets Spark see a table at its present version."""
    spark.read.format("delta").load(str(Path(lake.url) / table)).createOrReplaceTempView(table)


CHECKS = [the_portable_questions_of_the_cookbook_have_the_same_answers, a_filter_has_sql_that_spark_takes]

if __name__ == "__main__":
    lake = Lake(sys.argv[1])
    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    _, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    for table in TABLES:
        register(table)
    run_checks(CHECKS)
