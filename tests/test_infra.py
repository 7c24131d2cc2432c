"""What is shipped for clusters names only what exists."""

import json
import re
from pathlib import Path

from pipelines.label_metrics import LabelMetrics

INFRA = Path(__file__).parents[1] / "infra"


def test_the_dashboard_shows_every_metric_that_labelling_has() -> None:
    dashboard = json.loads((INFRA / "grafana/labelling.json").read_text())
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_(openvis_\w+)", target["expr"])
    }
    metrics = LabelMetrics("actor")
    counters = {metrics.frames, metrics.tracks, metrics.seconds, metrics.videos}
    exported = {f"{counter.info['name']}_total" for counter in counters} | {metrics.open_videos.info["name"]}
    assert shown == exported
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(dashboard["panels"])
