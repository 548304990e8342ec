"""Sail, a distributed engine that speaks Spark SQL and reads Delta tables, as a peer of `benches/queries.rs`: a JSON line in,
a JSON line out. It works as it would on many machines, but on this one (`local-cluster`): a driver and its workers.
"""

import json
import os
import sys
import time

os.environ["SAIL_MODE"] = "local-cluster"

from pysail.spark import SparkConnectServer  # noqa: E402 # the mode is read when it is imported
from pyspark.sql import SparkSession  # noqa: E402

server = SparkConnectServer("127.0.0.1", 0)
server.start(background=True)
spark = SparkSession.builder.remote(f"sc://127.0.0.1:{server.listening_address[1]}").getOrCreate()
spark.conf.set("spark.sql.session.timeZone", "UTC")

for line in sys.stdin:
    told = json.loads(line)
    try:
        if "table" in told:
            spark.read.format("delta").load(told["folder"]).createOrReplaceTempView(told["table"])
            answer = {}
        else:
            began = time.perf_counter()
            rows = spark.sql(told["statement"]).toArrow().num_rows
            answer = {"seconds": time.perf_counter() - began, "rows": rows}
    except Exception as error:  # whatever it says belongs into the table
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
