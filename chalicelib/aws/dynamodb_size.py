"""Sizes of items as DynamoDB counts them, since it bills each write by the item's whole KB."""

import math
from collections.abc import Mapping
from typing import Any

#: Bytes of an item that one write unit pays for.
UNIT_BYTES = 1_024


def write_units(item: Mapping[str, Any]) -> int:
    """Returns the write units that a write of the item takes, outside of transactions and indexes."""
    return units_of_bytes(item_bytes(item))


def units_of_bytes(size: int) -> int:
    return max(1, math.ceil(size / UNIT_BYTES))


def item_bytes(item: Mapping[str, Any]) -> int:
    """Returns the item's size: its names, and its values by their kind (DynamoDB's CapacityUnitCalculations)."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        digits = content.strip("-").strip("0").replace(".", "")
        return math.ceil(len(digits) / 2) + 1
    if kind == "L":
        return 3 + sum(1 + _value_bytes(element) for element in content)
    if kind == "M":
        return 3 + len(content) + item_bytes(content)
    return sum(len(element.encode()) for element in content) if kind == "SS" else 1
