"""The GPU's kernels compile, which takes no GPU: Triton's interpreter lets pass what its compiler refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="comes with torch's builds for CUDA, and on Linux with the test extra")

SCRIPT = """
import numpy as np, torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction, mangle_type

from mtbert.attention import AttentionView
from mtbert.tensor_draws import column_keys
from mtbert.dropout import AttentionDropout, Rates
from mtbert.kernels import attention, dropout

def compiled(self, *arguments, grid, warmup):
    constants = {(p.num,): a for p, a in zip(self.params, arguments) if p.is_constexpr}
    signature = {
        p.name: "constexpr" if p.is_constexpr else mangle_type(a) for p, a in zip(self.params, arguments)
    }
    source = triton.compiler.ASTSource(self, signature, constants)
    assert "ptx" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm
    print(self.__name__)

JITFunction.run = compiled
cpu = torch.device("cpu")
keys, lengths = torch.zeros(40, 1, dtype=torch.int32), np.array([40])
extents = AttentionView(np.array([0]), lengths, 40, "all", cpu).extents
by_row = [(0, 20, 0.1), (20, 40, 0.2)]
for rated, dtype in (([(0, 40, 0.1)], torch.float32), (by_row, torch.bfloat16)):
    rates = Rates.of(rated, cpu)
    x = torch.zeros(40, 128, dtype=dtype, requires_grad=True)
    columns = column_keys("somewhere", 64, "cpu")
    dropout.drop(x, keys, columns, *rates.tensors(cpu, dtype)).sum().backward()
    for mask in (None, AttentionDropout("layer", keys, rates, 2).mask(40)):
        attention.attention(x, x, x, 2, extents, mask).sum().backward()
"""


def test_every_kernel_compiles() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    made = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr[-3000:]
    assert set(made.stdout.split()) == {"_kernel", "_forward", "_of_queries", "_of_keys"}
