"""`python -m mtbert pretrain`: the folder that it leaves, and what it leaves where it does not end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForMaskedLM, BertModel

from mtbert import pretrain as pretraining
from mtbert.__main__ import main
from mtbert.bert import Backbone
from mtbert.hooks import UNALTERED
from mtbert.masked_language import PREFIX, MaskedLanguageHead
from mtbert.tokens import TokenBatch
from mtbert.weights import DEMO_FOLDER, load_base, read_tensors


def pretrain(out: Path, *more: str) -> int:
    return main(["pretrain", "--out", str(out), "--limit", "400", "--learning-rate", "1e-3", *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, pretrained further on its data."""
    out = tmp_path_factory.mktemp("pretrained") / "model"
    assert pretrain(out, "--steps", "40") == 0
    return out


def account(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "pretraining.json").read_text())
    return found


def test_hidden_words_of_text_that_was_held_out_are_told_better(folder: Path) -> None:
    before, after = account(folder)["held_out"]["before"], account(folder)["held_out"]["after"]
    assert before["loss"] > np.log(400)  # a fresh head knows nothing of 591 words
    assert after["loss"] < 0.6 * before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.2


def test_the_folder_says_what_it_came_from(folder: Path) -> None:
    found, demo = account(folder), load_base("demo")
    assert found["base"] == {"model": "demo", "fingerprint": demo.fingerprint}
    assert found["data"]["source"] == "demo"
    assert found["settings"]["steps"] == found["steps"] == 40
    assert found["settings"]["learning_rate"] == 1e-3
    assert found["tokens"] > 40 * 32 * 4


def test_the_folder_is_a_model_that_transformers_reads_alike(folder: Path) -> None:
    base = load_base(str(folder))
    backbone = Backbone.from_arrays(base.config, base.arrays)
    words = base.tokenizer().encode("a fine film", "the film was dull")
    ids, segments = torch.tensor([words.ids]), torch.tensor([words.type_ids])
    batch = TokenBatch(ids[0], segments[0], np.array([ids.shape[1]]), np.zeros(1, np.int64), ["sst"])
    hidden = backbone.encode(backbone.embed(batch, UNALTERED), batch, UNALTERED, "token")
    pooled = backbone.pool(hidden[batch.first_rows], UNALTERED)
    theirs = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = theirs(input_ids=ids, token_type_ids=segments)
    assert torch.allclose(hidden, wanted.last_hidden_state[0], atol=1e-5)
    assert torch.allclose(pooled, wanted.pooler_output, atol=1e-5)
    head = MaskedLanguageHead.started(base.config, read_tensors(folder), 0)
    with torch.no_grad():
        logits = head(hidden, backbone.embeddings.word.weight)
        whole = BertForMaskedLM.from_pretrained(folder).eval()(input_ids=ids, token_type_ids=segments)
    assert torch.allclose(logits, whole.logits[0], atol=1e-4)


def test_the_whole_backbone_moved_but_the_pooler(folder: Path) -> None:
    before, after = load_base("demo"), load_base(str(folder))
    assert before.config == after.config
    for name, array in before.arrays.items():
        assert (array == after.arrays[name]).all() == name.startswith("pooler."), name
    tensors = load_file(folder / "model.safetensors")
    assert sum(name.startswith(PREFIX) for name in tensors) == 5
    assert all(name.startswith(("bert.", PREFIX)) for name in tensors)
    assert {value.dtype for value in tensors.values()} == {torch.float32}


def test_the_tokenizer_is_the_base_model_s(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        assert (folder / name).read_bytes() == (DEMO_FOLDER / name).read_bytes()
    assert account(folder)["base"]["fingerprint"] != load_base(str(folder)).fingerprint


def test_the_same_seed_gives_the_same_model_and_another_another(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        assert pretrain(tmp_path / name, "--steps", "3", "--seed", str(seed)) == 0
    one, same, other = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "same", "other")
    )
    assert one == same != other


def test_pretraining_goes_on_with_the_head_that_a_model_has(folder: Path, tmp_path: Path) -> None:
    assert pretrain(tmp_path / "further", "--model", str(folder), "--steps", "2") == 0
    first, further = account(folder)["held_out"], account(tmp_path / "further")["held_out"]
    assert further["before"] == first["after"]


def test_a_folder_with_something_in_it_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert pretrain(tmp_path) == 2
    assert f"{tmp_path}: exists and is not empty" in capsys.readouterr().err
    assert pretrain(tmp_path / "notes.txt") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_and_one_in_a_new_folder_are_taken(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        assert pretrain(tmp_path / name, "--steps", "1") == 0
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(
            path.name for path in folder.iterdir()
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]


@pytest.mark.parametrize("moment", ["training", "writing"])
def test_an_interrupted_pretraining_leaves_nothing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted = Mock(side_effect=KeyboardInterrupt)
    if moment == "training":
        monkeypatch.setattr(pretraining, "masked_loss", interrupted)
    else:
        monkeypatch.setattr(shutil, "copyfile", interrupted)
    assert pretrain(tmp_path / "model", "--steps", "1") == 130
    assert "nothing is written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_ends_it_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", "--out", str(tmp_path / "model"), "--limit", "60",
                 "--learning-rate", "1e30", "--steps", "4"]) == 3  # fmt: skip
    assert "the loss is not finite by step" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
