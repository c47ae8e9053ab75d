"""`python -m mtbert export`: a run, or the best of a file's, as a folder with a model card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from analysis.standing import standing
from analysis.store import State, read, weights_path
from mtbert.__main__ import main
from tests.mtbert.data.files import cs224n_folder
from tests.mtbert.export.runs import executed

SEEDS = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data, a configuration, and the results of its two seeds."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "data").mkdir()
    cs224n_folder(folder / "data")
    content = {
        "data": str(folder / "data"),
        "low_rank": {"kind": "lora", "rank": 2},
        "training": {"steps": 3, "batch_size": 2},
    }
    (folder / "lora.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    for seed in range(SEEDS):
        assert main(["train", str(folder / "lora.yaml"), "--seed", str(seed), *results(folder)]) == 0
    return folder


def results(place: Path) -> list[str]:
    return ["--results", str(place / "results")]


def state_of(place: Path) -> State:
    return read(place / "results")


def test_a_run_becomes_a_folder_with_a_card_that_the_hub_reads(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = sorted(state_of(place).runs)[0]
    out = tmp_path / "adapter"
    assert main(["export", run_id[:-1] + "0", *results(place), "--to", "peft", str(out)]) == 0
    assert f"run {run_id} is in {out}, as peft has it:" in capsys.readouterr().out
    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.model_name) == ("peft", run_id)
    state = state_of(place)
    metrics = (state.runs[run_id].ended or {})["metrics"]
    told = {result.dataset_name: result.metric_value for result in card.data.eval_results or []}
    names = {"sst": "accuracy", "para": "accuracy", "sts": "pearson"}
    assert told == {task: metrics[f"{task}.{name}"] for task, name in names.items()
                    if metrics[f"{task}.{name}"] is not None}  # fmt: skip
    for each in standing(state, run_id).measures:
        if each.half_width is not None:
            over = f"{each.mean:.4f} ± {each.half_width:.4f} (seeds 0, 1)"
            assert f"| dev | {each.name} | {each.own:.4f} | {over} |" in card.text
    assert f"fingerprint `{state.runs[run_id].run['data']}`" in card.text
    assert "| sst | classification, 1 sentence(s) | 20 | 6 | 3 |" in card.text
    assert "rank: 2" in card.text
    assert "none: trained by itself" in card.text


def test_a_file_means_the_best_run_of_its_configuration(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    file = place / "lora.yaml"
    assert main(["export", str(file), *results(place), "--to", "transformers", str(out)]) == 0
    runs = state_of(place).runs.values()
    best = max(runs, key=lambda run: (run.ended or {})["score"])
    assert f"run {best.run_id} is in {out}" in capsys.readouterr().out
    told = json.loads((out / "mtbert.json").read_text(encoding="utf-8"))
    assert (told["form"], told["run"]["run_id"]) == ("transformers", best.run_id)


def test_the_own_folder_s_code_gives_what_the_run_predicted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = min(state_of(place).runs)
    assert main(["export", run_id, *results(place), "--to", "safetensors", str(tmp_path / "own")]) == 0
    names = executed(tmp_path / "own", monkeypatch)
    assert names["outputs"]("sst", ["show 0", "show 1"]).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["zzz", "--to", "peft", "out"], "no run whose id begins with 'zzz'"),
        (["{run}", "--to", "onnx", "out"], "--to: expected one of peft, transformers, safetensors"),
        (["{place}/none.yaml", "--to", "peft", "out"], "none.yaml: No such file"),
        (["{place}/other.yaml", "--to", "peft", "out"], "no completed run in these results; train it first"),
        (["{run}", "--to", "peft", "{place}/data"], "exists and is not empty"),
        (["{run}", "--limit", "5", "--to", "peft", "out"], "its fingerprint is"),
        (["{run}", "--to", "peft", "."], ".: is the folder that you are in; name a new one"),
    ],
)
def test_what_cannot_be_exported_is_said_and_leaves_nothing(
    arguments: list[str], said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (place / "other.yaml").write_text(f"{{data: {place / 'data'}, training: {{steps: 9}}}}")
    filled = [each.format(run=min(state_of(place).runs), place=place) for each in arguments]
    assert main(["export", *filled, *results(place)]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_without_weights_is_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = min(state_of(place).runs)
    path = weights_path(place / "results", run_id)
    away = path.rename(path.with_suffix(".away"))
    assert main(["export", run_id, *results(place), "--to", "peft", str(tmp_path / "out")]) == 2
    assert f"run {run_id} has no weights at {path}" in capsys.readouterr().err
    away.rename(path)
