"""The peer of `sweep_wall_clock.py`: a grid under Ray Tune over transformers' Trainer and PEFT.

    python benchmarks/peer_sweep.py PLAN

Written as the guides of the three libraries have it, and knowing nothing of this project. PLAN is a JSON
file: model (a folder), data (a folder of TASK-SPLIT.jsonl), tasks (name, kind and outputs of each), rank,
alpha and seed (the grid's values), targets, features, precision, steps, batch, rate, warmup, dropout,
every (steps between evaluations), at_once, and results (a folder, which gets metrics.json).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import ray
import torch
import transformers
from peft import LoraConfig, get_peft_model
from ray import tune
from torch import Tensor, nn


class Multitask(nn.Module):
    """A BERT with a PEFT LoRA and a linear head for each task; a batch is of one task."""

    def __init__(self, plan: Mapping[str, Any], rank: int, alpha: float) -> None:
        super().__init__()
        bert = transformers.BertModel.from_pretrained(
            plan["model"], hidden_dropout_prob=plan["dropout"], attention_probs_dropout_prob=plan["dropout"]
        )
        targets = "all-linear" if plan["targets"] == ["all_linear"] else plan["targets"]
        self.bert = get_peft_model(bert, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
        self.dropout = nn.Dropout(plan["dropout"])
        width = bert.config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, task["outputs"]) for task in plan["tasks"])
        self.kinds = [task["kind"] for task in plan["tasks"]]
        self.features = plan["features"]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor, task: Tensor
    ) -> dict[str, Tensor]:
        """Loss and logits of a padded batch, as transformers' Trainer wants them."""
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        features = output.pooler_output
        if self.features == "mean":
            mask = attention_mask.unsqueeze(-1)
            features = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        number = int(task[0])
        logits = self.heads[number](self.dropout(features))
        if self.kinds[number] == "classification":
            return {"loss": nn.functional.cross_entropy(logits, labels.long()), "logits": logits}
        values, labels = logits.squeeze(-1), labels.to(logits.dtype)
        if self.kinds[number] == "binary":
            loss = nn.functional.binary_cross_entropy_with_logits(values, labels)
        else:
            loss = nn.functional.mse_loss(values, labels)
        return {"loss": loss, "logits": logits}


class TaskBatches:
    """Batches of one task each, drawn in proportion to the tasks' sizes, from shuffled passes over each."""

    def __init__(self, sizes: Sequence[int], batch: int, steps: int, seed: int) -> None:
        self.sizes, self.batch, self.steps, self.seed = sizes, batch, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        draw = np.random.default_rng(self.seed)
        starts = np.cumsum([0, *self.sizes])
        left: list[list[int]] = [[] for _ in self.sizes]
        for task in draw.choice(len(self.sizes), self.steps, p=np.array(self.sizes) / sum(self.sizes)):
            while len(left[task]) < self.batch:
                left[task] += (starts[task] + draw.permutation(self.sizes[task])).tolist()
            yield left[task][: self.batch]
            del left[task][: self.batch]


class MultitaskTrainer(transformers.Trainer):
    """The Trainer with batches of one task each: the method that its documentation says to override."""

    batches: TaskBatches

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(
            self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator
        )


class Reported(transformers.TrainerCallback):
    """Tells Tune of every evaluation."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        self.metrics |= metrics
        tune.report(dict(self.metrics))


def metrics_of(found: transformers.EvalPrediction) -> dict[str, float]:
    """Accuracy of classes; of one output accuracy as a logit's, and Pearson's r as a value's."""
    outputs, labels = found.predictions, found.label_ids
    if outputs.shape[1] > 1:
        return {"accuracy": float((outputs.argmax(1) == labels).mean())}
    values = outputs[:, 0]
    right = (values > 0) == (labels > 0.5)
    return {"accuracy": float(right.mean()), "pearson": float(np.corrcoef(values, labels)[0, 1])}


def tokenised(plan: Mapping[str, Any], number: int, tokenizer: Any) -> Mapping[str, datasets.Dataset]:
    """Train and dev of a task, tokenised as the guides do it."""
    name = plan["tasks"][number]["name"]
    files = {split: f"{plan['data']}/{name}-{split}.jsonl" for split in ("train", "dev")}

    def encode(rows: Mapping[str, list[Any]]) -> dict[str, Any]:
        sentences = [rows[side] for side in ("first", "second") if side in rows]
        return {**tokenizer(*sentences, truncation=True), "task": [number] * len(rows["label"])}

    loaded = datasets.load_dataset("json", data_files=files)
    extra = [column for column in loaded["train"].column_names if column != "label"]
    return loaded.map(encode, batched=True, remove_columns=extra)


def trial(config: dict[str, Any]) -> None:
    """The Ray Tune function trainable: everything from the data's files to the last evaluation."""
    plan = config["plan"]
    torch.set_num_threads(1)
    transformers.set_seed(config["seed"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(plan["model"])
    data = [tokenised(plan, number, tokenizer) for number in range(len(plan["tasks"]))]
    arguments = transformers.TrainingArguments(
        output_dir="trainer",
        max_steps=plan["steps"],
        per_device_train_batch_size=plan["batch"],
        per_device_eval_batch_size=plan["batch"],
        learning_rate=plan["rate"],
        warmup_steps=round(plan["warmup"] * plan["steps"]),
        lr_scheduler_type="linear",
        eval_strategy="steps",
        eval_steps=plan["every"],
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=plan["precision"] == "bfloat16",
        disable_tqdm=True,
        seed=config["seed"],
    )
    trainer = MultitaskTrainer(
        model=Multitask(plan, config["rank"], config["alpha"]),
        args=arguments,
        train_dataset=datasets.concatenate_datasets([splits["train"] for splits in data]),
        eval_dataset={task["name"]: splits["dev"] for task, splits in zip(plan["tasks"], data, strict=True)},
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=metrics_of,
        callbacks=[Reported()],
    )
    sizes = [len(splits["train"]) for splits in data]
    trainer.batches = TaskBatches(sizes, plan["batch"], plan["steps"], config["seed"])
    trainer.train()


def main(path: str) -> None:
    """A Tuner over the grid; writes each trial's configuration and last metrics."""
    plan = json.loads(Path(path).read_text(encoding="utf-8"))
    ray.init("local", num_cpus=plan["at_once"])
    axes = {name: tune.grid_search(plan[name]) for name in ("rank", "alpha", "seed")}
    tuner = tune.Tuner(
        trial,
        param_space={**axes, "plan": plan},
        run_config=tune.RunConfig(name="peer", storage_path=plan["results"]),
    )
    results = tuner.fit()
    for error in results.errors:
        raise error
    found = [{"config": result.config, "metrics": result.metrics} for result in results]
    Path(plan["results"], "metrics.json").write_text(json.dumps(found, default=float), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
