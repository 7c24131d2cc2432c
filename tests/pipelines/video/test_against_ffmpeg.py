import shutil
from pathlib import Path

import pytest

from tests.pipelines.video.against_ffmpeg import TELLING, Case, differences, every_case


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg: apt install ffmpeg")
@pytest.mark.parametrize("case", TELLING, ids=str)
def test_videos_are_read_as_ffmpeg_reads_them(case: Case, tmp_path: Path) -> None:
    assert differences(case, tmp_path) == []


def test_all_cases_are_possible() -> None:
    assert all(case.is_possible for case in TELLING)
    assert len(every_case()) > 1000
