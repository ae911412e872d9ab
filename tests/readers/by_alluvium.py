"""Rows that `alluvium sql LOCATION --format ndjson` wrote, read back from their JSON by the types of the table."""

import contextlib
import datetime
import decimal
import json


@contextlib.contextmanager
def opened():
    yield read


def read(job, schema):
    with open(job["rows"], encoding="utf-8") as lines:
        for line in lines:
            # A number with a point is kept as text: a decimal has more digits than a float.
            row = json.loads(line, parse_float=str)
            if list(row) != [field["name"] for field in schema["fields"]]:
                raise ValueError(f"columns {list(row)}")
            yield [typed(row[field["name"]], field["type"]) for field in schema["fields"]]


def typed(value, kind):
    if value is None:
        return None
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return [typed(item, kind["elementType"]) for item in value]
        if kind["type"] == "struct":
            types = {field["name"]: field["type"] for field in kind["fields"]}
            return {name: typed(item, types[name]) for name, item in value.items()}
        return {typed(key, kind["keyType"]): typed(item, kind["valueType"]) for key, item in value.items()}
    if kind.startswith("decimal("):
        return decimal.Decimal(str(value))
    if kind in ("float", "double"):
        return float(value)
    if kind == "binary":
        return bytes.fromhex(value)
    if kind == "date":
        return datetime.date.fromisoformat(value)
    if kind in ("timestamp", "timestamp_ntz"):
        return datetime.datetime.fromisoformat(value)
    return value
