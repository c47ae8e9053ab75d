"""Draws docs/demo.svg, the README's picture, from runs on the embedded model and data.

./py sweeps/lora_grid.py
./py -m mtbert train examples/probe.yaml --seed 0    # and --seed 1; full.yaml likewise
./py docs/draw_demo.py results
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.plots.scores import configuration_scores
from analysis.query import query

RUNS = """
select case when backbone = 'trained' then 'full fine-tuning'
            when "low_rank.rank" is null then 'linear probe'
            else 'LoRA rank ' || "low_rank.rank" end as label, score,
       trainable
from runs where status = 'completed' order by trainable
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the picture from a results folder."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mtbert"  # the same runs give the same file
    from matplotlib import pyplot

    (results,) = sys.argv[1:] if argv is None else argv
    frame = query(results, RUNS).to_pandas()
    figure, axes = pyplot.subplots(figsize=(7, 0.55 * frame["label"].nunique() + 0.9), layout="constrained")
    configuration_scores(frame, list(dict.fromkeys(frame["label"])), axes)
    figure.savefig(Path(__file__).with_name("demo.svg"), metadata={"Date": None})
    return 0


if __name__ == "__main__":
    sys.exit(main())
