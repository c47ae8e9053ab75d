"""The embedded model: its files, its vocabulary, and that it can be rebuilt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import BertModel, BertTokenizerFast

from mtbert.demo import generator, rebuild
from mtbert.demo.lexicon import PEOPLE, TOPIC_GROUPS
from mtbert.demo.vocabulary import MAX_LENGTH, SPECIAL, vocabulary
from mtbert.weights import DEMO_FOLDER, load_base


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json"))


def test_the_weights_are_small_and_fit_their_config() -> None:
    base = load_base("demo")  # checks every tensor's shape against the config
    assert (DEMO_FOLDER / "model.safetensors").stat().st_size <= 4_000_000
    assert 500_000 < sum(array.size for array in base.arrays.values()) <= 1_000_000
    assert base.config.max_position_embeddings == MAX_LENGTH
    assert base.config.vocab_size == base.tokenizer().get_vocab_size()


def test_stock_transformers_loads_the_folder_whole() -> None:
    model, info = BertModel.from_pretrained(DEMO_FOLDER, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.hidden_size == load_base("demo").config.hidden_size


def test_the_packaged_vocabulary_is_that_of_the_generator() -> None:
    """A word added to the world needs the model to be rebuilt."""
    packaged = (DEMO_FOLDER / "vocab.txt").read_text(encoding="utf-8").split()
    assert packaged == vocabulary()
    assert tuple(packaged[: len(SPECIAL)]) == SPECIAL


def test_every_generated_word_is_one_piece(tokenizer: Tokenizer) -> None:
    texts = [
        text for passage in generator.pretraining_text(99, 500) for text in (passage.first, passage.second)
    ]
    texts += [
        text
        for examples in generator.examples().values()
        for example in examples
        for text in (example.first, example.second)
        if text is not None
    ]
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        assert not any(piece == "[UNK]" or piece.startswith("##") for piece in encoding.tokens), (
            encoding.tokens
        )


def test_any_other_english_text_is_spelt_without_unknown_pieces(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode(
        "Zoë's 37 quixotic jazz-waltzes: “vexing”? No!".replace("“", '"').replace("”", '"')
    )
    assert "[UNK]" not in encoding.tokens
    assert encoding.tokens[0] == "[CLS]"
    assert "##x" in encoding.tokens


def test_both_libraries_tokenise_alike(tokenizer: Tokenizer) -> None:
    stock = BertTokenizerFast.from_pretrained(DEMO_FOLDER)
    assert len(stock) == tokenizer.get_vocab_size()
    for example in generator.examples()["para", "dev"][:50]:
        ours = tokenizer.encode(example.first, example.second or "")
        theirs = stock(example.first, example.second)
        assert theirs["input_ids"] == ours.ids
        assert theirs["token_type_ids"] == ours.type_ids


def test_words_of_one_meaning_lie_near_each_other() -> None:
    """Weights that were never trained on this world would not know synonyms."""
    base = load_base("demo")
    words = base.arrays["embeddings.word.weight"] - base.arrays["embeddings.word.weight"].mean(axis=0)
    words = words / np.linalg.norm(words, axis=1, keepdims=True)
    tokenizer = base.tokenizer()
    concepts = [*PEOPLE, *(concept for group in TOPIC_GROUPS["goods"] for concept in group)]
    pairs = [[tokenizer.token_to_id(word.split()[-1]) for word in concept] for concept in concepts]
    first, second = np.array([pair for pair in pairs if len(pair) == 2]).T
    similar = words[first] @ words[second].T
    assert (similar.argmax(axis=1) == np.arange(len(first))).mean() > 0.8


def test_a_short_rebuild_gives_the_same_files_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        assert rebuild.main(["--out", str(tmp_path / name), "--passages", "96"]) == 0
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    assert "step 3 of 3: loss of masked words" in capsys.readouterr().out
    for file in ("config.json", "vocab.txt"):
        assert (tmp_path / "one" / file).read_bytes() == (DEMO_FOLDER / file).read_bytes(), file
