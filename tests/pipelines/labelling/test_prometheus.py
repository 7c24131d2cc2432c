import json
import re
import subprocess
import sys
from pathlib import Path

from pipelines.labelling.prometheus import TrackerMetrics

DASHBOARD = Path(__file__).parents[3] / "infra/monitoring/labelling.json"


WORKS = """
import json, re, sys, time, urllib.request
import ray
from pipelines.labelling.prometheus import TrackerMetrics

def exported():
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    matches = [re.match(r"ray_openvis_label_(\\w+){(.*)} (\\S+)$", line) for line in lines]
    samples = [match.groups() for match in matches if match]
    return {
        "/".join([name, *re.findall(r'(?:status|operator)="(\\w+)"', tags)]): float(value)
        for name, tags, value in samples
    }

often = {"metrics_report_interval_ms": 500}
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, _system_config=often)
metrics = TrackerMetrics("actor")
metrics.set_open(2)
metrics.add(frames=8, tracks=0, model_s=0.5, tracker_s=0.25)
metrics.add(frames=4, tracks=3, model_s=0.5, tracker_s=0.25)
metrics.add(frames=0, tracks=-3, model_s=0.0, tracker_s=0.0)  # tracks of a video that failed later
for status in ("ok", "ok", "failed"):
    metrics.finish(status)
deadline = time.monotonic() + 60
while (seen := exported()) != json.loads(sys.argv[1]) and time.monotonic() < deadline:
    time.sleep(0.2)
print(json.dumps(seen))
"""


def test_prometheus_sees_what_was_done() -> None:
    """What this node exports; in a process of its own, since only a new Ray can be told to export often."""
    expected = {"frames_total": 12, "tracks_total": 3, "seconds_total/model": 1.0, "seconds_total/tracker": 0.5}
    expected |= {"videos_total/ok": 2, "videos_total/failed": 1, "open_videos": 2}
    done = subprocess.run([sys.executable, "-c", WORKS, json.dumps(expected)], check=True, stdout=subprocess.PIPE)
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_the_dashboard_shows_every_metric() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_(openvis_\w+)", target["expr"])
    }
    metrics = TrackerMetrics("actor")
    counters = (metrics.frames, metrics.tracks, metrics.seconds, metrics.videos)
    assert shown == {f"{counter.info['name']}_total" for counter in counters} | {metrics.open_videos.info["name"]}
    places = [(panel["id"], panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len({place[0] for place in places}) == len({place[1:] for place in places}) == len(places)
