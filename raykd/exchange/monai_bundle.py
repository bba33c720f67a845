"""A final model as a MONAI bundle: metadata, weights and a configuration that runs (`python -m monai.bundle run`).

The network and the way from a scan to a mask are raykd's own, so a bundle asks for raykd beside MONAI: it predicts, voxel by voxel,
what the run's evaluation did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from raykd import __version__
from raykd.exchange.bundle_parts import network
from raykd.federation.segmenter import PERSONAL, Reading, model_network, model_reading
from raykd.numerics.params import kind_of, load_state
from raykd.results.reader import Run
from raykd.scenario.errors import RaykdError, did_you_mean
from raykd.scenario.labels import file_id
from raykd.scenario.load import load_scenario
from raykd.scenario.schema import Scenario

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20220324.json"
PARTS = "raykd.exchange.bundle_parts"
README = """# {name}

{description}

`inference.json` segments every NIfTI file of `dataset_dir` into `output_dir`, each mask on the voxels of its image:

    python -m monai.bundle run --config_file configs/inference.json --dataset_dir images --output_dir predictions

{reading} `inference.json` has the same under `reading`.

Run it in this folder, with raykd {version} and `fire` installed. Not a medical device; for research.
"""


def write_bundle(run: Run, folder: Path, model: str | None = None, site: str | None = None) -> Path:
    """Writes one of a run's final models as a bundle.

    Args:
        run: finished.
        folder: of the bundle; made where it is not there.
        model: a name in the run's `models/`; None: the one that is deployed.
        site: whose scans it is for, as for `model_reading`.

    Raises:
        RaykdError: there is no such model or site, the sites differ in how they show it their scans, or the folder cannot be
            written.
    """
    name = _chosen(run, model)
    scenario = load_scenario(run.path / "scenario.yaml").scenario
    if taught := run.manifest.get("repository_classes"):
        scenario = scenario.with_repository_classes(taught)
    try:
        how = model_reading(scenario, name, site)
    except RaykdError as error:
        raise RaykdError(f"{run.path}: {error}") from None
    block: dict[str, Any] = model_network(scenario, name).model_dump(mode="json")
    num_classes = len(scenario.classes) + 1
    net, payload = network(block, num_classes), load_file(run.path / "models" / f"{name}.safetensors")
    if further := sorted({kind_of(key) for key in payload} - {"params"}):
        what = " and ".join(further)
        raise RaykdError(f"{run.path}: its model holds {what} beside a network's parameters, for which a bundle has no place")
    load_state(net, payload)
    files = {
        "configs/metadata.json": json.dumps(_metadata(run, scenario, name, how), indent=4) + "\n",
        "configs/inference.json": json.dumps(_inference(block, num_classes, how), indent=4) + "\n",
        "docs/README.md": README.format(
            name=_title(run, name), description=_description(scenario), version=__version__, reading=_told(how, scenario.classes)
        ),
    }
    try:
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "models").mkdir(exist_ok=True)
        torch.save(net.state_dict(), folder / "models" / "model.pt")
    except OSError as error:
        raise RaykdError(f"{folder}: the bundle cannot be written ({error.strerror}); give another place with --out") from None
    return folder


def _chosen(run: Run, model: str | None) -> str:
    names = sorted(path.stem for path in (run.path / "models").glob("*.safetensors"))
    if not names:
        raise RaykdError(f"{run.path}: it holds no final model, because the run is not done or its method trains none")
    wanted = model or str(run.manifest.get("deployed", "global"))
    if wanted.startswith(PERSONAL):
        wanted = PERSONAL + file_id(wanted.removeprefix(PERSONAL))  # a site's name, or the id of its files
    if wanted in names:
        return wanted
    ask = "every site deploys a model of its own; choose one with --model" if model is None else f"there is no model '{model}'"
    raise RaykdError(f"{run.path}: {ask}; {did_you_mean(wanted, names) if model else 'known: ' + ', '.join(names)}")


def _told(how: Reading, classes: Sequence[str]) -> str:
    """What the bundle does with a scan, in sentences."""
    edges = (
        "its own" if how.spacing_mm is None else " x ".join("its own" if mm is None else f"{mm:g}" for mm in how.spacing_mm) + " mm"
    )
    told = [f"A scan is segmented at {edges} spacing, in windows of {' x '.join(map(str, how.window))} voxels."]
    if how.clip is not None:
        told.append("Intensities below {:g} and above {:g} are cut off first.".format(*how.clip))
    if how.known is not None:
        told.append(
            f"The model was taught {', '.join(classes[index - 1] for index in how.known)} alone and predicts no other class."
        )
    return " ".join(told)


def _title(run: Run, model: str) -> str:
    return f"{run.scenario.get('name', 'run')}, {run.manifest.get('method', '')}, {model}"


def _description(scenario: Scenario) -> str:
    return scenario.description or "A segmentation network trained in a simulated federation."


def _metadata(run: Run, scenario: Scenario, model: str, how: Reading) -> dict[str, Any]:
    classes = {"0": "background", **{str(index): name for index, name in enumerate(scenario.classes, 1)}}
    shape = {"spatial_shape": ["*", "*", "*"], "dtype": "float32", "is_patch_data": False}
    image = {"type": "image", "format": "magnitude", "num_channels": 1, "value_range": [-10, 10], "channel_def": {"0": "image"}}
    logits = {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(classes),
        "value_range": [0, 1],
        "channel_def": classes,
    }
    return {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by raykd {__version__} from run {run.run_id}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in ("nibabel",)} | {"raykd": __version__},
        "optional_packages_version": {},
        "name": _title(run, model),
        "task": f"Segmentation of {', '.join(scenario.classes)}",
        "description": _description(scenario),
        "authors": "the authors of the run",
        "copyright": "as the data that the model was trained on",
        "eval_metrics": _scores(run, model),
        "intended_use": "Research; not a medical device.",
        "raykd_reading": asdict(how),
        "network_data_format": {"inputs": {"image": image | shape}, "outputs": {"pred": logits | shape}},
    }


def _scores(run: Run, model: str) -> dict[str, float]:
    """Mean test DSC of a final model by class, over the sites that were scored with it of the mean over their cases."""
    cases, clients = run.cases, run.clients
    kind, _, site = model.partition("-")
    tested = cases[(cases["split"] == "test") & (cases["client_id"] >= 0)]
    scored = tested[(tested["model"] == kind) & (tested["round"] == tested["round"].max())]
    if site:
        own = clients[clients["client_name"].astype(str).map(file_id) == site]
        scored = scored[scored["client_id"].isin(own["client_id"])]
    by_site = scored.groupby(["class_name", "client_id"], observed=True)["dsc"].mean().groupby("class_name", observed=True).mean()
    return {f"dsc_{name}": round(float(value), 4) for name, value in by_site.dropna().items()}


def _inference(block: dict[str, Any], num_classes: int, how: Reading) -> dict[str, Any]:
    return {
        "imports": ["$import glob", "$import os", "$import torch", f"$import {PARTS} as parts"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "predictions",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "files": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "network_def": {"_target_": f"{PARTS}.network", "block": block, "num_classes": num_classes},
        "network": "$@network_def.to(@device)",
        "reading": {"_target_": f"{PARTS}.reading", **asdict(how)},
        "preprocessing": {"_target_": f"{PARTS}.ReadScan", "reading": "@reading"},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': file} for file in @files]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0, "collate_fn": "$list"},
        "inferer": {"_target_": f"{PARTS}.Windows", "reading": "@reading"},
        "postprocessing": {
            "_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg",
            "separate_folder": False, "resample": False, "output_dtype": "uint8", "print_log": False,
        },
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location=@device, weights_only=True)",
        "initialize": ["$@network.load_state_dict(@weights)"],
        "run": ["$parts.segment(@network, @dataloader, @inferer, @postprocessing)"],
    }  # fmt: skip
