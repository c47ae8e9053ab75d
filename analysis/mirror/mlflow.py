"""MLflow: a run there for each run, in the experiment `mtbert` of a tracking server or a local store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from analysis.mirror.content import Content, Ended, Key, Known, Value, missing
from analysis.store.errors import StoreError

EXPERIMENT = "mtbert"
_RUN, _ENDED = "mtbert.run_id", "mtbert.ended"  # the tags by which a run is known again
_BATCH = 500  # values at once: MLflow takes 1,000
_LONGEST = 500  # characters of a parameter's value that every version of MLflow takes
_STATUS = {"completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED"}


class MLflow:
    """See the module.

    Args:
        place: a tracking URI: `sqlite:///mlflow.db`, or `http://…`.

    Raises:
        StoreError: MLflow is not installed, or the store cannot be opened.
    """

    def __init__(self, place: str) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param, RunTag
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise missing("mlflow", "mlflow", error) from None
        self._metric, self._param, self._tag, self._error = Metric, Param, RunTag, MlflowException
        self._place = place
        with self._told():
            self._client = MlflowClient(tracking_uri=place)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)

    def known(self, run_id: str) -> Known | None:
        with self._told():
            run = self._find(run_id)
            if run is None:
                return None
            keys: set[Key] = set()
            for name in run.data.metrics:
                for each in self._client.get_metric_history(run.info.run_id, name):
                    keys.add((name, each.step, each.timestamp))
            ended = run.data.tags.get(_ENDED)
            return Known(frozenset(keys), None if ended is None else int(ended))

    def write(self, run: Content, values: Iterable[Value], ended: Ended | None) -> None:
        with self._told():
            of = (self._find(run.run_id) or self._created(run)).info.run_id
            metrics = iter([self._metric(each.name, each.value, each.key[2], each.step) for each in values])
            while batch := list(islice(metrics, _BATCH)):
                self._client.log_batch(of, metrics=batch)
            if ended is not None:
                self._end(of, ended)

    def _end(self, of: str, ended: Ended) -> None:
        time = round(ended.time * 1000)
        numbers = [
            self._metric(f"summary/{name}", value, time, ended.step) for name, value in ended.numbers.items()
        ]
        texts = [self._tag(name, value[:_LONGEST]) for name, value in ended.texts.items()]
        self._client.log_batch(of, metrics=numbers, tags=texts)
        self._client.set_terminated(of, _STATUS[ended.status], time)
        self._client.set_tag(of, _ENDED, str(time))  # last: what stands before it is whole

    def _find(self, run_id: str) -> Any:
        found = self._client.search_runs([self._experiment], f"tags.`{_RUN}` = '{run_id}'", max_results=1)
        return found[0] if found else None

    def _created(self, run: Content) -> Any:
        tags = {_RUN: run.run_id, "sweeps": ",".join(run.sweeps), "labels": ",".join(run.labels)}
        made = self._client.create_run(
            self._experiment, round(run.begun * 1000), tags=tags, run_name=run.run_id
        )
        parameters = iter(
            [self._param(name, str(value)[:_LONGEST]) for name, value in run.parameters.items()]
        )
        while batch := list(islice(parameters, 100)):
            self._client.log_batch(made.info.run_id, params=batch)
        return made

    @contextmanager
    def _told(self) -> Iterator[None]:
        """MLflow's errors, in a line."""
        try:
            yield
        except self._error as error:
            said = str(error).splitlines()[0]
            raise StoreError(
                f"--at {self._place}: expected a tracking URI such as sqlite:///mlflow.db; {said}"
            ) from None
