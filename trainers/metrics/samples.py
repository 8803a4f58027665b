"""Results by sample id, filled batch by batch on each rank and then put together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

State = dict[str, npt.NDArray]


class SampleTable:
    """Columns of results, one row per sample.

    Ids of -1 are padding and are ignored; a sample that comes a second time (from a rank that was filled up with
    repeated samples) keeps its first row. So what is computed from the table does not depend on how samples were
    dealt out, nor on their order.
    """

    def __init__(self) -> None:
        self._batches: list[State] = []

    def add(self, ids: npt.ArrayLike, columns: Mapping[str, npt.ArrayLike]) -> None:
        """Append a batch.

        Args:
            ids: (n,) sample ids; -1: padding.
            columns: arrays (n, ...), with the same names and trailing shapes in every batch.

        Raises:
            ValueError: a column's length is not that of ``ids``, or the names change.
        """
        ids = np.asarray(ids, np.int64)
        batch = {name: np.asarray(values) for name, values in columns.items()}
        for name, values in batch.items():
            if values.shape[:1] != ids.shape:
                raise ValueError(f"{name}: expected {len(ids)} rows, one per id, got shape {values.shape}")
        if self._batches and set(self._batches[0]) != {"id", *batch}:
            raise ValueError(f"results {sorted(batch)} differ from those of earlier batches; give the same in each")
        real = ids >= 0
        self._batches.append({"id": ids[real], **{name: values[real] for name, values in batch.items()}})

    def state(self) -> State:
        """Plain arrays with the key ``id``: sorted by id, each id once. Empty before the first batch."""
        if not self._batches:
            return {}
        joined = {name: np.concatenate([batch[name] for batch in self._batches]) for name in self._batches[0]}
        _, first = np.unique(joined["id"], return_index=True)
        tidy = {name: values[first] for name, values in joined.items()}
        self._batches = [tidy]
        return dict(tidy)

    def merge(self, state: State) -> None:
        """Take in the state of another rank."""
        if state:
            self.add(state["id"], {name: values for name, values in state.items() if name != "id"})
