import pytest

from pipelines.labelling.placement import parse_machines, placed


def test_kinds_of_machines_in_order() -> None:
    kinds = parse_machines("model_on", ["ray.io/accelerator-type=H100 zone=a", "ray.io/accelerator-type=A100", "any"])
    assert kinds == [{"ray.io/accelerator-type": "H100", "zone": "a"}, {"ray.io/accelerator-type": "A100"}, {}]
    assert placed(kinds[:2]) == {
        "label_selector": {"ray.io/accelerator-type": "H100", "zone": "a"},
        "fallback_strategy": [{"label_selector": {"ray.io/accelerator-type": "A100"}}],
    }


def test_machines_to_avoid_are_avoided_in_each_kind() -> None:
    assert placed(parse_machines("decode_on", ["zone=a", "any"]), ["f1", "f2"]) == {
        "label_selector": {"zone": "a", "ray.io/node-id": "!in(f1,f2)"},
        "fallback_strategy": [{"label_selector": {"ray.io/node-id": "!in(f1,f2)"}}],
    }
    assert placed(parse_machines("decode_on", None)) == {"label_selector": None, "fallback_strategy": None}


@pytest.mark.parametrize("machine", ["spot", "=spot", "zone=", "", "zone=a b"])
def test_other_forms_are_named(machine: str) -> None:
    with pytest.raises(ValueError, match=f"^model_on: expected labels such as .*, or any, got '{machine}'$"):
        parse_machines("model_on", [machine])


def test_no_kind_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="^model_on: is empty"):
        parse_machines("model_on", [])
