"""What is let go beside an ingester: erasures that were cut off are ended, and the policy is carried out, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable

from edgecloud.registry import SqliteStore

from . import erasing
from .retention import ALL
from .thinning import SLACK, LetGo, Thinner


class LettingGo:
    """Implements beside.StoreWork, on a store of its own."""

    def __init__(self, store: SqliteStore, *, stopping: Callable[[], bool] = lambda: False) -> None:
        self._store, self._stopping, self._thinner = store, stopping, Thinner(store)
        self._seen = (-1, 0)  # policy and newest version when nothing was to be done

    def waiting(self) -> bool:
        """Return whether there may be work: asked each second, it looks at no lineage."""
        if self._store.erasures.under_way() or self._store.thinnings.discards(1):
            return True
        policy, newest = self._now()
        return policy != self._seen[0] or not 0 <= newest - self._seen[1] < SLACK  # an erasure takes the newest along

    def run(self) -> object | None:
        """Do one piece, None when there is none."""
        if self._store.erasures.under_way():
            return erasing.resume(self._store)
        now = self._now()
        # The row alone is anybody's: what is let go rests on the seal. That all is kept needs none.
        done = LetGo() if self._store.policies.current().keep == ALL else self._thinner.work(stopping=self._stopping)
        if done.gone or done.dropped:
            return done
        self._seen = now
        return None

    def _now(self) -> tuple[int, int]:
        return self._store.policies.current().number, self._store.database.number("SELECT coalesce(max(id), 0) FROM version")
