"""On which machines of a cluster an operator may run, by the labels that Ray gives machines. Imports no ray."""

from collections.abc import Collection, Sequence
from typing import Any

ANY = "any"
"""Stands for machines with whatever labels."""

_NODE = "ray.io/node-id"  # a label that Ray gives every machine


def parse_machines(name: str, machines: Sequence[str] | None) -> list[dict[str, str]]:
    """Reads kinds of machines, the preferred one first, as label selectors of Ray.

    Args:
        name: name of the option.
        machines: each `any`, or labels such as `ray.io/market-type=spot`, separated by spaces; None is `any`.

    Raises:
        ValueError: one is not of this form.
    """
    kinds = []
    for machine in [ANY] if machines is None else machines:
        pairs = [label.partition("=") for label in machine.split()]
        if machine != ANY and (not pairs or not all(key and value for key, _, value in pairs)):
            raise ValueError(f"{name}: expected labels such as ray.io/market-type=spot, or any, got {machine!r}")
        kinds.append({} if machine == ANY else {key: value for key, _, value in pairs})
    if not kinds:
        raise ValueError(f"{name}: is empty; give labels such as ray.io/market-type=spot, or null")
    return kinds


def placed(kinds: Sequence[dict[str, str]], avoided: Collection[str] = ()) -> dict[str, Any]:
    """Returns the arguments of Ray Data for an operator that runs on machines of the first kind that is free.

    Args:
        kinds: kinds of machines, of `parse_machines`.
        avoided: Ray's ids of machines on which it must not run.
    """
    others = {_NODE: f"!in({','.join(avoided)})"} if avoided else {}
    first, *rest = [kind | others for kind in kinds]
    return {
        "label_selector": first or None,
        "fallback_strategy": [{"label_selector": selector} for selector in rest] or None,
    }
