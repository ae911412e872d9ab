"""Answers a query on a Delta table by DuckDB, an engine that shares no code with Alluvium's writer.

    query_duckdb.py LOCATION SQL

LOCATION is a folder, a file:// URL or an s3:// URL; SQL sees the table as the view `t`. Prints one JSON
object a row. Numbers (decimals apart), booleans, strings, lists and structs are JSON's own; decimals,
dates, times and not-a-number are strings, timestamps with a zone are in UTC, binary is lowercase hex.

For s3:// it takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and
AWS_ENDPOINT_URL. Exits with 1 and the reason on standard error when DuckDB refuses the table or the query.
"""

import datetime
import decimal
import json
import math
import sys

import duckdb

from by_duckdb import connected, create_secret, quoted

ROWS_AT_ONCE = 10_000


def as_json(value):
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    return str(value)


def print_rows(answer):
    names = [column[0] for column in answer.description]
    while rows := answer.fetchmany(ROWS_AT_ONCE):
        for row in rows:
            print(json.dumps(dict(zip(names, map(as_json, row))), ensure_ascii=False, allow_nan=False))


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: query_duckdb.py LOCATION SQL")
    location, sql = sys.argv[1:]
    try:
        connection = connected()
        if location.startswith("s3://"):
            create_secret(connection)
        connection.execute(f"CREATE VIEW t AS SELECT * FROM delta_scan({quoted(location)})")
        print_rows(connection.execute(sql))
    except duckdb.Error as error:
        sys.exit(f"duckdb cannot answer on {location}: {error}")


if __name__ == "__main__":
    main()
