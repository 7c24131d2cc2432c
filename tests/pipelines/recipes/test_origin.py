import json
from pathlib import Path

import pytest

from pipelines.recipes.origin import origin_of
from tests.pipelines.storage.put import Put


def test_a_checkpoint_says_where_its_weights_come_from(bucket: str, put: Put, tmp_path: Path) -> None:
    content = json.dumps({"config": {}, "fingerprint": "", "origin": {"recipe": {}, "fine_tuned": False}})
    (tmp_path / "config.json").write_text(content)
    assert origin_of(str(tmp_path)) == {"recipe": {}, "fine_tuned": False}
    put(f"{bucket}/made/config.json", content.encode())
    assert origin_of(f"{bucket}/made") == {"recipe": {}, "fine_tuned": False}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"origin": 3}', '{"origin": {"foo": 1}}', "{}"])
def test_others_say_nothing(content: str, tmp_path: Path) -> None:
    """What is wrong with them is said when they are loaded."""
    assert origin_of(None) == origin_of(str(tmp_path / "absent")) == {}
    (tmp_path / "config.json").write_text(content)
    assert origin_of(str(tmp_path)) == {}
