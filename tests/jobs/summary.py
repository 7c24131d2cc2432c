from pipelines.training.run import TrainingSummary

SUMMARY = TrainingSummary(
    steps=100, first_step=0, restarts=0, loss=1.5, scores={"AP": 0.125}, model="out/model", seconds=12.3
)
