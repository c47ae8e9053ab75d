"""TensorBoard: a folder of event files for each run.

What is written is asked of the event files themselves. Each time there is news of a run it goes into a new
file, which is there whole or not at all.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.mirror.content import Content, Ended, Key, Known, Value, missing
from analysis.store.errors import told

_START, _END = "_hparams_/session_start_info", "_hparams_/session_end_info"
_SUCCESS, _FAILURE = 1, 2


class TensorBoard:
    """See the module.

    Args:
        place: the folder to give to `tensorboard --logdir`.

    Raises:
        StoreError: tensorboardX is not installed.
    """

    def __init__(self, place: str) -> None:
        try:
            from tensorboardX.proto import event_pb2, plugin_hparams_pb2, summary_pb2
            from tensorboardX.record_writer import RecordWriter
        except ImportError as error:
            raise missing("tensorboard", "tensorboardX", error) from None
        self._folder = Path(place)
        self._events, self._hparams, self._summary = event_pb2, plugin_hparams_pb2, summary_pb2
        self._writer = RecordWriter

    def known(self, run_id: str) -> Known | None:
        files = self._files(run_id)
        if not files:
            return None
        keys: set[Key] = set()
        ended: int | None = None
        for path in files:
            for event in self._read(path):
                time = round(event.wall_time * 1000)
                for value in event.summary.value:
                    if value.tag == _END:
                        ended = time
                    else:
                        keys.add((value.tag, event.step, time))
        return Known(frozenset(keys), ended)

    def write(self, run: Content, values: Iterable[Value], ended: Ended | None) -> None:
        files, folder = self._files(run.run_id), self._folder / run.run_id
        events = [self._events.Event(wall_time=run.begun, file_version="brain.Event:2")]
        if not files:
            events += self._beginning(run)
        for value in values:
            scalar = self._summary.Summary.Value(tag=value.name, simple_value=value.value)
            events.append(self._event(value.step, value.time, scalar))
        if ended is not None:
            events += self._ending(ended)
        path = folder / f"events.out.tfevents.{len(files):010d}.mtbert"
        temporary = folder / f".{os.getpid()}.tmp"  # not named as one that is read
        with told(path, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            writer = self._writer(str(temporary))
            for event in events:
                writer.write(event.SerializeToString())
            writer.close()
            os.replace(temporary, path)

    def _files(self, run_id: str) -> list[Path]:
        with told(self._folder, "read"):
            return sorted((self._folder / run_id).glob("events.out.tfevents.*"))

    def _read(self, path: Path) -> Iterator[Any]:
        """The events of a file: each is its length, a checksum of that, itself, and a checksum of that."""
        with told(path, "read"):
            data = path.read_bytes()
        at = 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield self._events.Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16

    def _beginning(self, run: Content) -> list[Any]:
        """The configuration as the hyperparameters of a session."""
        start = self._hparams.SessionStartInfo(group_name=run.run_id, start_time_secs=run.begun)
        parameters: Mapping[str, Any] = {**run.parameters, "sweeps": ",".join(run.sweeps)}
        for name, value in parameters.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, (int, float)):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = str(value)
        data = self._hparams.HParamsPluginData(session_start_info=start)
        return [self._event(0, run.begun, self._plugin(_START, data))]

    def _ending(self, ended: Ended) -> list[Any]:
        """The summary's numbers, to be shown beside the hyperparameters, and the session's end."""
        scalar = self._summary.Summary.Value
        events = [
            self._event(ended.step, ended.time, scalar(tag=f"summary/{name}", simple_value=value))
            for name, value in ended.numbers.items()
        ]
        info = self._hparams.SessionEndInfo(end_time_secs=ended.time)
        data = self._hparams.HParamsPluginData(session_end_info=info)
        data.session_end_info.status = _SUCCESS if ended.status in ("completed", "stopped") else _FAILURE
        return [*events, self._event(ended.step, ended.time, self._plugin(_END, data))]

    def _plugin(self, tag: str, data: Any) -> Any:
        of = self._summary.SummaryMetadata
        metadata = of(plugin_data=of.PluginData(plugin_name="hparams", content=data.SerializeToString()))
        return self._summary.Summary.Value(tag=tag, metadata=metadata)

    def _event(self, step: int, time: float, value: Any) -> Any:
        return self._events.Event(step=step, wall_time=time, summary=self._summary.Summary(value=[value]))
