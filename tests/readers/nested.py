"""Values as Python hands them out are not everywhere what a table declares; this gives them the shape of the type.

Only the shape is mended, where a reader's Python has no other: a map that comes as a list of pairs. What a value is
stays as it came, for canonical.py to judge.
"""


def shaped(value, kind):
    """Returns a value of Delta's type `kind` with maps as dicts."""
    if value is None or not isinstance(kind, dict):
        return value
    if kind["type"] == "array":
        return [shaped(item, kind["elementType"]) for item in value]
    if kind["type"] == "struct":
        types = {field["name"]: field["type"] for field in kind["fields"]}
        return {name: shaped(item, types.get(name, "unknown")) for name, item in value.items()}
    entries = value.items() if isinstance(value, dict) else value
    return {key: shaped(item, kind["valueType"]) for key, item in entries}


def rows(columns, schema):
    """Returns the rows of `columns`, lists in the order of the schema's fields."""
    kinds = [field["type"] for field in schema["fields"]]
    for values in zip(*columns):
        yield [shaped(value, kind) for value, kind in zip(values, kinds)]
