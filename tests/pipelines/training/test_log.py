import json
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from pipelines.training.log import TrainingLog
from pipelines.training.output import METRICS, TrainingOutput


@pytest.fixture
def output(tmp_path: Path) -> TrainingOutput:
    return TrainingOutput.open(str(tmp_path))


def events(output: TrainingOutput) -> list[Event]:
    """Of all files; a record is its length, a checksum, the event and a checksum."""
    found = []
    for file in sorted(Path(output.files.root, "tensorboard").iterdir()):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_lines_and_events(output: TrainingOutput) -> None:
    log = TrainingLog(output, "", 0)
    log.add(1, {"loss": 2.0, "loss/mask": 1.5})
    log.add(2, {"loss": 1.0})
    assert log.text() == '{"step": 1, "loss": 2.0, "loss/mask": 1.5}\n{"step": 2, "loss": 1.0}\n'
    log.close()
    assert output.files.read_bytes(METRICS) == log.text().encode()
    values = [(event.step, v.tag, v.simple_value) for event in events(output) for v in event.summary.value]
    assert values == [(1, "loss", 2.0), (1, "loss/mask", 1.5), (2, "loss", 1.0)]
    assert not log.folder.exists()


def test_going_on_cuts_off_what_was_ahead(output: TrainingOutput) -> None:
    log = TrainingLog(output, "", 0)
    log.add(1, {"loss": 3.0})
    kept = log.text()
    log.add(2, {"loss": 9.0})
    log.close()
    log = TrainingLog(output, kept, 1)
    assert output.files.read_bytes(METRICS) == kept.encode()
    log.add(2, {"loss": 2.0})
    log.close()
    lines = [json.loads(line) for line in (output.files.read_bytes(METRICS) or b"").splitlines()]
    assert lines == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
    starts = [event.step for event in events(output) if event.HasField("session_log")]
    assert starts[-1] == 2  # from where TensorBoard forgets what it had


def test_no_event_is_lost_at_the_end(output: TrainingOutput) -> None:
    log = TrainingLog(output, "", 0)
    for step in range(1, 301):
        log.add(step, {"loss": 1.0})
    log.close()
    assert sum(event.HasField("summary") for event in events(output)) == 300


def test_it_is_written_now_and_then(output: TrainingOutput) -> None:
    log = TrainingLog(output, "", 0)
    log.add(1, {"loss": 3.0})
    assert output.files.read_bytes(METRICS) == b""
    log.published -= log.every_s
    log.add(2, {"loss": 2.0})
    assert output.files.read_bytes(METRICS) == log.text().encode()
    log.close()


def test_a_checkpoint_with_lines_missing(output: TrainingOutput) -> None:
    with pytest.raises(ValueError, match="expected 5 lines in the checkpoint of step 5, got 1"):
        TrainingLog(output, '{"step": 1}\n', 5)
