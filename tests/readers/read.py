"""Reads whole Delta tables by one reader, and prints their rows in the one form that all readers share.

    read.py READER < JOBS

READER is duckdb, polars, deltalake or spark, or alluvium, which takes rows that our own program wrote. Each line of
JOBS is a table to read, as a JSON object:

    {"table": NAME, "location": FOLDER OR s3://.., "schema": DELTA'S SCHEMA STRING, "version": N, "where": SQL,
     "rows": FILE}

`version` and `where` may be missing or null: then all rows of the newest version are read. `rows` is for alluvium
only: the file with its answer, one JSON object a line. Every column that the schema names is read, in its order, hidden ones too.

A line of the answer is one of

    {"table": NAME, "row": {COLUMN: VALUE, ..}}      sorted by the text of the line
    {"table": NAME, "n_rows": N}                     after the last row of a table
    {"table": NAME, "error": TEXT}                   when the reader refuses the table

A reader that refuses one table goes on with the next. For s3:// it takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_REGION, AWS_ENDPOINT_URL and AWS_ALLOW_HTTP. What a value looks like stands in canonical.py.
"""

import importlib
import json
import sys

import canonical

READERS = ("alluvium", "deltalake", "duckdb", "polars", "spark")


def lines_of(job, read):
    """Returns the answer on one table."""
    name = job["table"]
    schema = json.loads(job["schema"])
    try:
        rows = [canonical.row(values, schema) for values in read(job, schema)]
    except canonical.Misfit as misfit:
        return [{"table": name, "error": f"not of the declared type: {misfit}"}]
    except Exception as error:  # Whatever a reader raises is its answer, and the test says whether it may.
        return [{"table": name, "error": f"{type(error).__name__}: {error}"}]
    rows.sort(key=lambda row: json.dumps(row, ensure_ascii=False))
    return [{"table": name, "row": row} for row in rows] + [{"table": name, "n_rows": len(rows)}]


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in READERS:
        sys.exit(f"usage: read.py {'|'.join(READERS)} < JOBS")
    reader = importlib.import_module(f"by_{sys.argv[1]}")
    jobs = [json.loads(line) for line in sys.stdin if line.strip()]
    with reader.opened() as read:
        for job in jobs:
            for line in lines_of(job, read):
                print(json.dumps(line, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    main()
