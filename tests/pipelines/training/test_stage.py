from pipelines.training.config import TrainingConfig
from pipelines.training.stage import Objective, Stage
from tests.pipelines.training.points import Points, PointsStage


def test_protocols() -> None:
    assert isinstance(PointsStage(), Stage)
    assert isinstance(Points(), Objective)
    assert not isinstance(TrainingConfig(output="a", steps=1, batch_size=1), Stage)
