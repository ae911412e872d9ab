"""Spark's MERGE on the workload of the upsert benchmark: random keys into a table of that many rows, vectors on.

    tests/services up spark && eval "$(tests/services env spark)"
    "$ALLUVIUM_TEST_SPARK" benches/peers/merge_spark.py --rows 10000000 --batches 1000,100000 --rounds 3

The table has the columns of the benchmark's and files of a million rows; each batch lies in a parquet file before the
clock starts. Prints one line a batch size: the best and the median time of a MERGE.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time

# tests/services puts Delta's jars into the virtual environment.
JARS = os.path.join(sys.prefix, "jars-delta")

# The columns of a row by its key; `{instant}` is the time of the change.
COLUMNS = """
    order_id,
    format_string('customer-%06d', order_id % 10000) AS customer,
    CAST(1 + pmod(hash(order_id), 99900) / 100 AS DECIMAL(18,2)) AS amount,
    element_at(array('PLACED', 'PAID', 'SHIPPED', 'DELIVERED'), 1 + pmod(hash(order_id, 2), 4)) AS status,
    1 + order_id % 9 AS quantity,
    TIMESTAMP '{instant}' AS updated_at,
    repeat('x', 50) AS note
"""


def session(scratch, memory):
    from pyspark.sql import SparkSession

    jars = ":".join(os.path.join(JARS, name) for name in sorted(os.listdir(JARS)))
    settings = {
        "spark.driver.extraClassPath": jars,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": memory,
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": scratch,
        "spark.local.dir": scratch,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[*]").appName("alluvium-benches")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def make_table(spark, location, rows):
    files = max(1, rows // 1_000_000)
    keys = spark.range(0, rows, 1, files).withColumnRenamed("id", "order_id")
    keys.createOrReplaceTempView("keys")
    made = spark.sql(f"SELECT {COLUMNS.format(instant='2026-02-01 00:00:00')} FROM keys")
    made.write.format("delta").option("delta.enableDeletionVectors", "true").save(location)


def make_batch(spark, folder, keys, number):
    location = os.path.join(folder, f"batch-{len(keys)}-{number}")
    spark.createDataFrame([(key,) for key in keys], "order_id BIGINT").createOrReplaceTempView("keys")
    instant = f"2026-03-01 00:00:{number % 60:02}"
    spark.sql(f"SELECT {COLUMNS.format(instant=instant)} FROM keys").write.parquet(location)
    return location


def merge(spark, table, batch):
    begun = time.monotonic()
    spark.sql(
        f"MERGE INTO delta.`{table}` AS target USING parquet.`{batch}` AS source "
        "ON target.order_id = source.order_id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
    ).collect()
    return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", default="1000,10000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="4g", help="of the JVM; 50,000,000 rows do not fit into 4g")
    asked = parser.parse_args()
    chance = random.Random(42)
    with tempfile.TemporaryDirectory() as scratch:
        spark = session(scratch, asked.memory)
        table = os.path.join(scratch, "table")
        make_table(spark, table, asked.rows)
        number = 0
        # The first MERGE of a JVM compiles and warms up, and is not counted.
        merge(spark, table, make_batch(spark, scratch, chance.sample(range(asked.rows), 1_000), number))
        for n_keys in (int(size) for size in asked.batches.split(",")):
            took = []
            for _ in range(asked.rounds):
                number += 1
                batch = make_batch(spark, scratch, chance.sample(range(asked.rows), n_keys), number)
                took.append(merge(spark, table, batch))
            best, median = min(took), statistics.median(took)
            print(f"{n_keys:>9,} keys into {asked.rows:,} rows: best {best:.2f} s, median {median:.2f} s", flush=True)
        spark.stop()


main()
