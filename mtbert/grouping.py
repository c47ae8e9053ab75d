"""Which runs share a pack, and the kind of group that a run asks for."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from mtbert.batches import Request
from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.features import Features, FeatureStore, depends_on_example_alone
from mtbert.group import Group
from mtbert.member import Member
from mtbert.run import Run
from mtbert.techniques import GradientSurgery


def group_key(run: Run) -> Hashable:
    """Runs with equal keys may share a pack; one that trains the backbone has a key of its own.

    Any could share one with gradient surgery, but each of its several backward passes is over the whole pack.
    """
    configuration = run.configuration
    surgery = isinstance(configuration.weighting, GradientSurgery)
    alone = run.run_id if configuration.backbone == "trained" else None
    stored = depends_on_example_alone(configuration)
    return (configuration.precision, configuration.max_length, surgery, stored, alone)


def new_group(
    member: Member, backbone: Backbone, data: TokenisedData, device: str, store: FeatureStore
) -> Group:
    """An empty group for runs with this one's key; its sequences are as long as run and model let them."""
    longest = backbone.config.max_position_embeddings
    length = min(member.configuration.max_length or longest, longest)
    if depends_on_example_alone(member.configuration):
        return ProbeGroup(backbone, data, length, device, store)
    return Group(backbone, data, length, device)


class ProbeGroup(Group):
    """Members whose heads read what depends on the example alone: it is computed once, and then stored."""

    def __init__(
        self,
        backbone: Backbone,
        data: TokenisedData,
        max_length: int,
        device: str,
        store: FeatureStore,
    ) -> None:
        super().__init__(backbone, data, max_length, device)
        self._store = store

    def features(self, requests: Sequence[Request]) -> Features:
        read = {at: member.configuration.features for at, member in self.pack.admitted.items()}
        return self._store.read(self.backbone, self.max_length, requests, read)
