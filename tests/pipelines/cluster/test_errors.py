from pipelines.cluster.errors import reason


def test_reason() -> None:
    error = RuntimeError("\x1b[36mray::f()\x1b[39m\n  File x\nValueError: it is broken\nmore\nKeyError: later")
    assert reason(error) == "ValueError: it is broken"
    assert reason(RuntimeError("plain")) == "plain"
    assert reason(RuntimeError()) == "RuntimeError()"
