"""The panel: judges of unlike kinds over one set of images, whose features are computed once for all of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from adanat_rl.config.errors import UserError
from adanat_rl.evaluation.jackknife import num_groups, pseudo_values
from adanat_rl.evaluation.joined_judge import JoinedJudge
from adanat_rl.evaluation.judge import Judge
from adanat_rl.evaluation.panel.contract import FeatureSpace, PanelJudge
from adanat_rl.generation.seeding import Purpose, philox
from adanat_rl.metrics.accumulation import State
from adanat_rl.metrics.checks import NonFiniteError
from adanat_rl.metrics.encoders import ImageEncoder

_MOST_SETS = 4  # over which a judge of sets is averaged


class Panel:
    """Judges together.

    Args:
        judges: with names, values and spaces of their own; judges that share a space hand over the same object.

    Raises:
        UserError: there is none, or two have the same name, the same value, or different spaces of one name.
    """

    def __init__(self, judges: Sequence[PanelJudge]) -> None:
        if not judges:
            raise UserError("a panel needs one judge or more")
        self.judges = tuple(judges)
        self.identity = "; ".join(f"{judge.name} in {_identity(judge.space)}" for judge in judges)
        self.values = tuple(value for judge in judges for value in judge.values)
        self.spaces: dict[str, FeatureSpace] = {}
        for judge in judges:
            if self.spaces.setdefault(judge.space.name, judge.space) is not judge.space:
                raise UserError(f"judge {judge.name}: another judge has a feature space named {judge.space.name}")
        for what, names in (
            ("judges", [judge.name for judge in judges]),
            ("values", [value.key for value in self.values]),
        ):
            doubled = {name for name in names if names.count(name) > 1}
            if doubled:
                raise UserError(f"two {what} of a panel have the name {min(doubled)}")

    def begin(self) -> PanelSet:
        """An empty set of images."""
        return PanelSet(self)

    def __call__(self, images: Tensor, context: Tensor) -> dict[str, float]:
        """All values of images float32 `[N, C, H, W]` in [0, 1] that were drawn for contexts `[N]`."""
        gathered = self.begin()
        gathered.add(images, context)
        return gathered.result()


class PanelSet:
    """Images under judgement: their features in each space, and what they were drawn for."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._features: dict[str, list[Tensor]] = {name: [] for name in panel.spaces}
        self._context: list[Tensor] = []
        self._measured: dict[str, list[float]] = {}
        self._measured_count = 0

    @property
    def count(self) -> int:
        """Images so far."""
        return sum(map(len, self._context))

    @torch.no_grad()
    def add(self, images: Tensor, context: Tensor) -> None:
        """Takes images float32 `[B, C, H, W]` in [0, 1] that were drawn for contexts `[B]`.

        Raises:
            UserError: a space gave something else than a row for each image.
        """
        images = images.cpu()
        for name, space in self._panel.spaces.items():
            features = space(images)
            if features.dim() != 2 or len(features) != len(images):
                raise UserError(
                    f"feature space {name} gave {list(features.shape)} for {len(images)} images, expected "
                    f"[{len(images)}, D]"
                )
            self._features[name].append(features.float().cpu())
        self._context.append(context.cpu())

    def result(self) -> dict[str, float]:
        """A number for each value of the panel.

        Raises:
            UserError: there are fewer than two images, or a judge gave other values than it has announced.
        """
        return {key: float(np.mean(numbers)) for key, numbers in self._of_sets().items()}

    def replicates(self) -> dict[str, list[float]]:
        """Numbers for each value whose mean is the value and which spread as values of parts of the images do.

        Where a judge measures sets, they are the numbers of the sets. Otherwise they are those of a jackknife. Which
        images are together does not depend on what was drawn. A value of too few images has a single one.
        """
        features, context = self._all()
        groups = _groups(context)
        found = {key: list(numbers) for key, numbers in self._of_sets().items()}
        for judge in self._panel.judges:
            if judge.set_size is not None or len(groups) < 2:
                continue
            rows = features[judge.space.name]
            without = []
            for number in range(len(groups)):
                rest = torch.cat([group for other, group in enumerate(groups) if other != number])
                without.append(_asked(judge, rows[rest], context[rest]))
            for value in judge.values:
                found[value.key] = pseudo_values(found[value.key][0], [numbers[value.key] for numbers in without])
        return found

    def _of_sets(self) -> dict[str, list[float]]:
        """The numbers of each set that a judge measures, by value; asked for once, as long as no image is added."""
        features, context = self._all()
        if self._measured_count != len(context):
            self._measured, self._measured_count = {}, len(context)
            for judge in self._panel.judges:
                rows = features[judge.space.name]
                of_sets = [_asked(judge, rows[part], context[part]) for part in _sets(context, judge.set_size)]
                self._measured |= {key: [float(found[key]) for found in of_sets] for key in of_sets[0]}
        return self._measured

    def _all(self) -> tuple[dict[str, Tensor], Tensor]:
        context = torch.cat(self._context)
        if len(context) < 2:
            raise UserError(f"a panel needs 2 images or more, got {len(context)}")
        return {name: torch.cat(rows) for name, rows in self._features.items()}, context

    def state(self) -> State:
        """Features and contexts so far."""
        arrays = {f"features_{name}": torch.cat(rows).numpy() for name, rows in self._features.items()}
        identity = np.array(self._panel.identity)
        return {"identity": identity, "context": torch.cat(self._context).numpy(), **arrays}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a state.

        Raises:
            UserError: it is of another panel.
        """
        expected = {"identity", "context", *(f"features_{name}" for name in self._features)}
        if set(state) != expected or str(state["identity"]) != self._panel.identity:
            raise UserError("images so far were judged by another panel")
        self._measured_count = 0
        self._context = [torch.from_numpy(state["context"])]
        for name in self._features:
            self._features[name] = [torch.from_numpy(state[f"features_{name}"])]


def _identity(space: FeatureSpace) -> str:
    """Its name, and for networks a hash of their weights."""
    if isinstance(space, ImageEncoder):
        return f"{space.name} {space.content_hash()[:12]}"
    if not isinstance(space, nn.Module):
        return space.name
    digest = hashlib.blake2b(digest_size=8)
    for tensor in space.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return f"{space.name} {digest.hexdigest()}"


def _asked(judge: PanelJudge, features: Tensor, context: Tensor) -> Mapping[str, float]:
    """A judge's numbers, if they are those that it has announced."""
    found = judge(features, context)
    expected = {value.key for value in judge.values}
    if set(found) != expected:
        raise UserError(f"judge {judge.name} gave {sorted(found)}, expected {sorted(expected)}")
    for key, number in found.items():
        if not math.isfinite(number):
            raise NonFiniteError(f"judge {judge.name} gave {number} for {key}")
    return found


def _sets(context: Tensor, size: int | None) -> list[Tensor]:
    """Rows of disjoint sets of so many images, four at most; all in order where they are no more than that."""
    count = len(context)
    if size is None or count <= size:
        return [torch.arange(count)]
    return list(_dealt(context).split(size)[: min(_MOST_SETS, count // size)])


def _groups(context: Tensor) -> list[Tensor]:
    """Rows of the groups of a jackknife, equal to one; a single one where they would be small."""
    return list(_dealt(context).tensor_split(num_groups(len(context))))


def _dealt(context: Tensor) -> Tensor:
    """All rows in a random order that has each class evenly spread, so that parts differ in images, not in classes."""
    order = philox(Purpose.JUDGE, len(context)).permutation(len(context))
    labels = context.numpy()[order]
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return torch.from_numpy(order[np.argsort(place, kind="stable")])


class PanelledJudge(JoinedJudge):
    """Adds the values of a panel to a judge's numbers.

    Args:
        judge: gives the rest.
    """

    def __init__(self, judge: Judge, panel: Panel) -> None:
        super().__init__(judge, panel, "panel")
        self.panel = panel
