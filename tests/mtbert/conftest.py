"""One thread: the tests share few cores, and the order of float additions must not depend on their number."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from tests.mtbert import toys

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which no test has done yet


@pytest.fixture(scope="session")
def data() -> TokenisedData:
    """Random sentences over the reports' three tasks."""
    return toys.random_data()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """A small random BERT in float64."""
    return toys.backbone()


@pytest.fixture(scope="session")
def backbone32() -> Backbone:
    """The same in float32, its linear layers packed where torch can."""
    return toys.backbone("float32")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
