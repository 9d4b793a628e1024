"""What trackers have stored, read back: `{(step, name): value}`, pictures."""

import csv
import json
from pathlib import Path


def read_csv(folder):
    with (folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(int(r["step"]), r["name"]): float(r["value"]) for r in rows}
    assert len(found) == len(rows)
    return found, None


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    events = EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    )
    events.Reload()
    scalars = {
        (event.step, tag): event.value
        for tag in events.Tags()["scalars"]
        for event in events.Scalars(tag)
    }
    images = {
        (event.step, tag)
        for tag in events.Tags()["images"]
        for event in events.Images(tag)
    }
    return scalars, images


def read_wandb(folder):
    from wandb.proto import wandb_internal_pb2

    scalars, images = {}, set()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            row = {
                ".".join([item.key, *item.nested_key]).strip("."): json.loads(
                    item.value_json
                )
                for item in record.history.item
            }
            for name, value in row.items():
                if name.endswith(".path"):
                    assert list(folder.glob(f"wandb/*/files/{value}"))
                    images.add((row["step"], name.removesuffix(".path")))
                elif name != "step" and "." not in name and name[0] != "_":
                    scalars[row["step"], name] = value
    return scalars, images


def _records(data):
    """Yields the records of a `.wandb` file, which is a log of LevelDB."""
    block, header = 32768, 7
    at, record = header, b""
    while at + header <= len(data):
        left = block - at % block
        if left < header:
            at += left
            continue
        size = int.from_bytes(data[at + 4 : at + 6], "little")
        kind = data[at + 6]
        record += data[at + header : at + header + size]
        at += header + size
        # A record is whole (1), or ends with its last part (4).
        if kind in (1, 4):
            yield record
            record = b""


def read_mlflow(folder):
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("keras-lenet")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    scalars = {
        (metric.step, name): metric.value
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    }
    paths = client.list_artifacts(run.info.run_id, "images")
    parts = [
        Path(p.path).name.split("+") for p in paths if "webp" not in p.path
    ]
    return scalars, {(int(part[2]), part[0]) for part in parts}


def read_trackio(folder):
    import trackio
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    (run,) = trackio.Api().runs("keras-lenet")
    scalars, images = {}, set()
    for row in SQLiteStorage.get_logs("keras-lenet", run.name):
        for name, value in row.items():
            if isinstance(value, dict):
                assert (MEDIA_DIR / value["file_path"]).is_file()
                images.add((row["step"], name))
            elif name not in ("step", "timestamp"):
                scalars[row["step"], name] = value
    return scalars, images
