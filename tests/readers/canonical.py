"""The one form of values in which readers are compared: by the type that the table declares, never by what came.

| type | form |
|---|---|
| integers, booleans, strings | JSON's own |
| float, double | the shortest text that reads back as the same number, or NaN, Infinity, -Infinity |
| decimal(p,s) | text with s digits after the point |
| binary | lowercase hex |
| date | 2026-02-28 |
| timestamp | 2026-02-28T23:59:59.123456Z |
| timestamp_ntz | 2026-02-28T23:59:59.123456 |
| array, struct | JSON's own; a struct in the order of its declaration |
| map | a list of [key, value], sorted |

A reader whose value is of another type than the table declares is a Misfit: a decimal that came as a float, an instant
without zone, a string for a date.
"""

import datetime
import decimal
import json
import math
import struct

# More digits than a decimal of Delta has, so that nothing is rounded in a comparison.
WIDE = decimal.Context(prec=80)

INTEGERS = {"byte": 8, "short": 16, "integer": 32, "long": 64}


class Misfit(Exception):
    """A value that is not of the type that the table declares."""


def row(values, schema):
    """Returns a row as {column: value}; `values` come in the order of the schema's fields."""
    fields = schema["fields"]
    values = list(values)
    if len(values) != len(fields):
        raise Misfit(f"{len(values)} columns, not {len(fields)}")
    return {field["name"]: value_of(value, field["type"], field["name"]) for field, value in zip(fields, values)}


def value_of(value, kind, place):
    """Returns a value of Delta's type `kind` in its form; `place` names it for messages."""
    if value is None:
        return None
    if isinstance(kind, dict):
        return NESTED[kind["type"]](value, kind, place)
    if kind.startswith("decimal("):
        return decimal_text(value, int(kind[len("decimal(") : -1].split(",")[1]), place)
    if kind in INTEGERS:
        bits = INTEGERS[kind]
        expect(type(value) is int and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1), value, kind, place)
        return value
    return SCALARS[kind](value, place)


def expect(fits, value, kind, place):
    if not fits:
        raise Misfit(f"{place} is {kind}, but came as {type(value).__name__} {value!r}")


def plain(of, kind):
    def check(value, place):
        expect(type(value) is of, value, kind, place)
        return value

    return check


def decimal_text(value, scale, place):
    expect(isinstance(value, decimal.Decimal) and value.is_finite(), value, "decimal", place)
    scaled = value.quantize(decimal.Decimal(1).scaleb(-scale), context=WIDE)
    expect(scaled == value, value, f"decimal of scale {scale}", place)
    return format(scaled, "f")


def double(value, place):
    expect(type(value) is float, value, "double", place)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def single(value, place):
    expect(type(value) is float, value, "float", place)
    # Python has doubles only: a float that was widened and one that was read as text meet here.
    return double(struct.unpack("f", struct.pack("f", value))[0], place)


def binary(value, place):
    expect(isinstance(value, (bytes, bytearray, memoryview)), value, "binary", place)
    return bytes(value).hex()


def date(value, place):
    expect(type(value) is datetime.date, value, "date", place)
    return value.isoformat()


def timestamp(value, place):
    expect(isinstance(value, datetime.datetime) and value.tzinfo is not None, value, "timestamp", place)
    return value.astimezone(datetime.timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def timestamp_ntz(value, place):
    expect(isinstance(value, datetime.datetime) and value.tzinfo is None, value, "timestamp_ntz", place)
    return value.isoformat(timespec="microseconds")


def struct_value(value, kind, place):
    expect(isinstance(value, dict), value, "struct", place)
    names = [field["name"] for field in kind["fields"]]
    expect(sorted(value) == sorted(names), sorted(value), f"struct of {names}", place)
    return {
        field["name"]: value_of(value[field["name"]], field["type"], f"{place}.{field['name']}")
        for field in kind["fields"]
    }


def array(value, kind, place):
    expect(isinstance(value, list), value, "array", place)
    return [value_of(item, kind["elementType"], f"{place}[]") for item in value]


def map_value(value, kind, place):
    expect(isinstance(value, dict), value, "map", place)
    entries = [
        [value_of(key, kind["keyType"], f"{place} key"), value_of(item, kind["valueType"], f"{place}[{key!r}]")]
        for key, item in value.items()
    ]
    return sorted(entries, key=lambda entry: json.dumps(entry, ensure_ascii=False))


SCALARS = {
    "boolean": plain(bool, "boolean"),
    "string": plain(str, "string"),
    "float": single,
    "double": double,
    "binary": binary,
    "date": date,
    "timestamp": timestamp,
    "timestamp_ntz": timestamp_ntz,
}
NESTED = {"struct": struct_value, "array": array, "map": map_value}
