import pytest

from jobs import demo


def test_demo_prints_tracks_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    demo.main()
    printed = capsys.readouterr().out
    assert "UNTRAINED" in printed
    assert printed.count("clip ") == 2
    assert printed.count("track") == 2
