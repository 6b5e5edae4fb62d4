"""One model's history on this device: seals each update on its parent, and moves the head in the transaction that queues it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from edgeagent.samples import cards
from edgecommon.sqlite import Database, Row
from modelwire.cards.facts import facts_in, several
from modelwire.errors import LineageError, StateDamaged, TooLarge, WireError, WrongBase
from modelwire.lattice.snap import Snapped
from modelwire.lattice.state import ModelState
from modelwire.update import container
from modelwire.update import sections as update
from modelwire.update.container import Sealed
from modelwire.update.header import Header
from modelwire.update.sections import AnySection, Kind, Sections
from modelwire.wire import cbor
from modelwire.wire.records import Welcome

from .answers import Answered
from .beside.rows import Lies, PlacedBase
from .doubts import CONCLUDED
from .history import OK, Head, History
from .outbox import Waiting
from .outcome import Outcome, merged, said
from .slots import Written

RECIPE = Kind.RECIPE.name.lower()
FOREIGN = "the centre's head is one that this folder knows nothing of:"
FORKED = "another state folder speaks with this one's key"
REWOUND = "rewound"  # the centre holds less than it once said


class Lineage(History):
    """The history of one model. All that changes it goes through here, one transaction each."""

    _apart = b""  # commit of the last of a queue whose sum no container holds: it is not tried over and over

    # Rounds.

    def seal(
        self, head: Head, kind: Kind, sections: Sequence[AnySection], after: ModelState, extension: Mapping[str, cbor.Value], *,
        parent: bytes | None = None, version: int | None = None, recipe: bytes = b"",
    ) -> Sealed:  # fmt: skip
        """Return the update that leads from `parent` (the head by default) to `after`. Raises NotWelcome before the first epoch.

        recipe: of kind recipe, what `Recipe.encode` gives; the sections are none then. Raises WrongBase for a state of another base, of a
        round that began before the model went over.
        """
        self.check_welcome(head)
        if (of := after.manifest.commit) != self.base_commit:
            raise WrongBase(what=f"an update of {self.name}", kind="base", expected=self.base_commit.hex()[:16], got=of.hex()[:16])
        header = Header(
            kind, self.board.device, self.name, head.epoch, version or head.next_version, parent or head.commit,
            self.manifest.schema.id, after.root, after.fingerprint, self.base_commit if kind is Kind.SNAPSHOT else b"", extension,
        )  # fmt: skip
        return container.seal(header, sections, self.manifest.schema, self.board.key, self.board.identity.id, recipe=recipe)

    def seal_smallest(
        self, head: Head, forms: Mapping[Kind, Sequence[AnySection]], after: ModelState, extension: Mapping[str, cbor.Value], *,
        parent: bytes | None = None, version: int | None = None,
    ) -> list[Sealed]:  # fmt: skip
        """Return the update to `after` in each of these forms, the one of the fewest bytes first. Raises TooLarge when none fits."""
        out, refused = list[Sealed](), list[TooLarge]()
        for kind, sections in forms.items():
            try:
                out.append(self.seal(head, kind, sections, after, extension, parent=parent, version=version))
            except TooLarge as e:
                refused.append(e)
        if not out:
            raise refused[0]
        return sorted(out, key=lambda sealed: len(sealed.data))

    def with_extension(self, sealed: Sealed, extension: Mapping[str, cbor.Value]) -> Sealed:
        """Return the same update with another extension, signed anew. Raises TooLarge."""
        return container.with_extension(sealed, extension, self.board.key, self.board.identity.id)

    def adopt(
        self, head: Head, snapped: Snapped, written: Written, sealed: Sealed, outcome: Outcome, *, answer: Answered | None = None,
        note: str = "", beside: Callable[[int], None] = lambda version: None,
    ) -> int:  # fmt: skip
        """Make the snapped round the head, queue its update, and return its version. The slot's files are on the disk already.

        answer: to the command that this carries out; it is no round then. beside: writes what else belongs to the version.
        """
        with self._db.transaction():
            version = self._enqueue(sealed, head, outcome, file_sha256=written.file_sha256, note=note)
            beside(version)
            self._db.run(
                "UPDATE model SET slot=?, file_sha256=?, private_sha256=?, widen=?, step=? WHERE name=?",
                written.slot, written.file_sha256, written.private_sha256, json.dumps(list(snapped.clamped)),
                json.dumps([snapped.step.m, snapped.step.s] if snapped.step else []), self.name,
            )  # fmt: skip
            if answer is None:
                self._count_round(outcome)
                if not outcome.untold:
                    self._db.run("UPDATE model SET carded_id=? WHERE name=?", outcome.trained_id, self.name)
                if outcome.card is not None and (facts := facts_in(outcome.card)):
                    self._tell({"epoch": head.epoch, "facts": facts})
            else:
                self.answers.keep(answer)
        return version

    def reject(self, head: Head, outcome: Outcome, reason: str, *, widen: Sequence[int]) -> None:
        """Write down that a round was rejected. Everything else is as it was before the round: nothing was changed.

        widen: the tensors that the next round gives larger units.
        """
        with self._db.transaction():
            self._db.run("UPDATE model SET widen=? WHERE name=?", json.dumps(list(widen)), self.name)
            self._db.insert(
                "version", model=self.name, epoch=head.epoch, state="rejected", reason=reason, parent=head.commit, **_columns(outcome)
            )
            self._count_round(outcome)

    # Snapshots and sums.

    def snapshot(self, now: int, *, note: str, parent: bytes | None = None, command: int = 0) -> int:
        """Queue the whole present state, on `parent` or the head, and return its version.

        command: the number of the command that asked for it, which is answered then. Raises TooLarge when no container holds it.
        """
        with self._db.transaction():
            head, state = self.head(), self.load().state
            extension: dict[str, cbor.Value] = {"note": note} if note else {}
            sealed = self.seal(head, Kind.SNAPSHOT, state.snapshot(), state, extension, parent=parent)
            outcome = Outcome(head.rounds, None, None, 0, 0, head.trained_id, now)
            version = self._enqueue(sealed, head, outcome, file_sha256=head.file_sha256, note=note)
            if command:
                self.answers.keep(Answered(command, True, f"snapshot @{version}"))
        return version

    def go_over(self, to: PlacedBase, state: ModelState, now: int, *, note: str, beside: Callable[[], None]) -> int:
        """Make the base that soaks the one that the model is on, queue the snapshot that names it, and return its version.

        state: of that base, as its slot holds it. What was served before lies beside, passive, in the place of what was. now: Unix seconds.
        beside: writes what else belongs to it. One transaction. Raises NotWelcome before the first epoch, TooLarge when no container
        holds the snapshot, LineageError where the model was moved since: what was learned is not all there, then.
        """
        with self._db.transaction():
            head = self.head()
            self.check_welcome(head)
            if to.learned_of != head.file_sha256:
                raise LineageError(reason=f"{self.name} was moved to @{head.version} while the base {to.commit.hex()[:12]} soaked")
            extension: dict[str, cbor.Value] = {"note": note}
            h = Header(
                Kind.SNAPSHOT, self.board.device, self.name, head.epoch, head.next_version, head.commit, state.manifest.schema.id,
                state.root, state.fingerprint, to.commit, extension,
            )  # fmt: skip
            sealed = container.seal(h, state.snapshot(), state.manifest.schema, self.board.key, self.board.identity.id)
            outcome = Outcome(head.rounds, None, None, 0, 0, head.trained_id, now)
            before = self._db.one("SELECT manifest, widen, step FROM model WHERE name=?", self.name)
            version = self._enqueue(sealed, head, outcome, file_sha256=to.file_sha256, note=note)
            self.plans.release()
            self.beside.drop(to)
            self.beside.put(PlacedBase(
                Lies.PASSIVE, 0, self.base_commit, before["manifest"], head.place, now, head.slot, head.file_sha256, head.private_sha256,
                before["widen"], before["step"],
            ))  # fmt: skip
            if state.manifest.schema.id != self.manifest.schema.id:  # what was measured is another model's
                self._db.run("DELETE FROM figure WHERE model=?", self.name)
            self._db.run(
                "UPDATE model SET manifest=?, base_commit=?, place=?, based=?, slot=?, file_sha256=?, private_sha256=?, widen=?, step=?,"
                " look='' WHERE name=?",
                to.manifest, to.commit, to.place, version, to.slot, to.file_sha256, to.private_sha256, to.widen, to.step, self.name,
            )  # fmt: skip
            beside()
        self.reload()
        return version

    def recipes_queued(self) -> list[int]:
        """Return the versions that wait as recipes and were never offered."""
        return [w.version for w in self.outbox.waiting("queued") if w.kind == RECIPE]

    def coalesce(self, *, give_up_recipes: bool = False) -> list[int]:
        """Make the updates that were never offered into one, the last one's number; return the numbers that it carries.

        A recipe has no sum with anything: it stays, with all before it, unless it is given up; then a snapshot takes their place, and
        says whose provenance went. The head's commit changes, in the same transaction: the last update's container is another one now.
        Raises TooLarge, once for each queue, when no container holds their sum; they stay apart then.
        """
        with self._db.transaction():
            based = self.head().based  # nothing is summed across: what was queued on the base before stays as it is, in its order
            queued = [w for w in self.outbox.waiting("queued") if w.version >= based]
            given_up = [w.version for w in queued if w.kind == RECIPE]
            if given_up and not give_up_recipes:
                queued = [w for w in queued if w.version > given_up[-1]]
                given_up = []
            if (len(queued) < 2 and not given_up) or queued[-1].commit == self._apart:
                return []
            head, last = self.head(), queued[-1]
            assert last.version == head.version and last.commit == head.commit
            bodies = [container.parse(self.outbox.body(w.version)) for w in queued]
            state = self.load().state
            kind, sections = self._sum(queued, bodies, state)
            extension = merged([b.header.extension for b in bodies], [w.version for w in queued])
            if given_up:
                extension["note"] = f"the outbox was full: the recipes of {said(given_up)} were given up"
            try:
                sealed = self.seal_smallest(
                    head, {kind: sections, Kind.SNAPSHOT: state.snapshot()}, state, extension, parent=queued[0].parent, version=last.version
                )[0]
            except TooLarge:
                self._apart = last.commit
                raise
            kind = sealed.header.kind
            commit, body = sealed.commit, sealed.data
            if given_up and len(body) >= sum(w.size for w in queued):
                self._apart = last.commit  # nothing would be won by it
                return []
            carried = [w.version for w in queued[:-1]]
            self.plans.carry(queued[0].version, last.version)
            self.outbox.carry(carried, last.version)
            self.outbox.replace(last.version, body, commit_id=commit, parent=queued[0].parent, kind=kind.name.lower(), bytes=len(body))
            if given_up:
                self.outbox.note(last.version, str(extension["note"]))
            self._db.run("UPDATE model SET head_commit=? WHERE name=?", commit, self.name)
            if isinstance(card := extension.get("card"), bytes) and several(cards.read(card)):
                self._tell({})
        return carried

    def _sum(self, queued: Sequence[Waiting], bodies: Sequence[container.Container], state: ModelState) -> tuple[Kind, Sections]:
        if any(b.header.kind in (Kind.SNAPSHOT, Kind.RECIPE) for b in bodies):
            return Kind.SNAPSHOT, state.snapshot()
        total = bodies[0].sections(self.manifest.schema)
        for b in bodies[1:]:
            total = update.add(total, b.sections(self.manifest.schema), self.manifest)
        return Kind.EXACT if self.manifest.all_exact else Kind.DELTA, total

    def offer(self, w: Waiting) -> None:
        """Mark an update as handed to the transport, on the disk: in the database, and before that in a second place."""
        self.store.note_sent(w.commit)
        self.outbox.offer(w.version)

    # What the centre says.

    def verified(self, row: Row) -> tuple[list[int], list[int]]:
        """Take the centre's word that it has rebuilt `row`; return the versions that this is news for, and those it can't hold then."""
        with self._db.transaction():
            news = self.outbox.verified(row)
            return news, self.doubts.off_chain(news)

    def refused(self, row: Row, reason: str, good: bytes, now: int) -> list[int]:
        """Take a refusal of `row`: what rests on it is refused too, and when that is the head, a snapshot on `good` is queued.

        The model itself never goes back. Without a good commit of this folder's there is nothing to build on: sending stops in this epoch.
        """
        with self._db.transaction():
            news = self.outbox.refuse(row, reason)
            self._tell({})
            if self.head().version in news:
                if good and self._own(good):
                    self._snapshot_or_block(now, note=f"after the refusal of @{row['version']}", parent=good)
                elif good:  # of a history that another folder has made: to go on from it would make two of them one
                    self._block(f"{FORKED}: {reason}")
                else:
                    self._block(reason or "refused without a good commit")
        return news

    def _snapshot_or_block(self, now: int, *, note: str, parent: bytes) -> None:
        try:
            self.snapshot(now, note=note, parent=parent)
        except TooLarge as e:
            self._block(f"{note}, no snapshot can be sent: {e.message}")

    def _own(self, commit: bytes) -> bool:
        """Return whether a commit is the base or a version of this folder's, though its database may have lost it since."""
        known = self._db.maybe("SELECT 1 FROM version WHERE model=? AND commit_id=?", self.name, commit)
        first = self._db.one("SELECT first_commit FROM model WHERE name=?", self.name)[0]
        return commit in (self.base_commit, first) or known is not None or commit in self.store.sent()

    def sent_unknown(self) -> bool:
        """Return whether the last update that left is none that the database knows: it is older than what left this board."""
        last = self.store.last_sent()
        return bool(last) and self._db.maybe("SELECT 1 FROM version WHERE model=? AND commit_id=?", self.name, last) is None

    def mend_outbox(self, now: int) -> str:
        """Give up the updates whose bytes here are not those that their commits name, and what rests on them; return what became of them.

        What they changed goes as a snapshot, under a number of its own: whatever the centre has of them stays as it is.
        """
        with self._db.transaction():
            for w in self.outbox.waiting():
                found = self._sealed(w)
                if found is None or (found.parent, found.epoch) != (w.parent, w.epoch):
                    reason = f"the bytes of @{w.version} were damaged on this board"
                    return f"{self.name}: {reason}{self._start_over(found.parent if found else w.parent, w.version - 1, reason, now)}"
        return ""

    def _sealed(self, w: Waiting) -> Header | None:
        """Return the header of an update that waits, None where its bytes are not those that its commit names."""
        try:
            found = container.parse(self.outbox.body(w.version))
        except (WireError, StateDamaged, TypeError):  # a blob may have become text, or a number
            return None
        return found.header if found.commit == w.commit else None

    def leave_epoch(self) -> None:
        """Give up what the centre has not verified; what is served goes on, as a snapshot, in the epoch that a new state is granted."""
        with self._db.transaction():
            self.outbox.drop_open("left for a new epoch")
            self._db.run("UPDATE model SET epoch=0, welcome='', blocked='' WHERE name=?", self.name)
            self._tell({})

    def _block(self, why: str) -> None:
        self._db.run("UPDATE model SET blocked=? WHERE name=?", why, self.name)

    def welcome(self, w: Welcome, now: int, *, fresh: bool = True, held: int | None = None) -> str:
        """Take the centre's answer to a hello, and return what it means, for the log.

        fresh: it answers a hello of this connection, and is no word of earlier that somebody says again: only that can take anything back.
        held: the newest version that was known to be there when that hello was said; receipts of later ones may have overtaken the answer.
        REWOUND: `rewind` is for when it says so again.
        """
        with self._db.transaction():
            before = self.head()
            self._db.run("UPDATE model SET welcome=?, trainers=? WHERE name=?", w.status, json.dumps(list(w.trainers)), self.name)
            if w.status != OK or not w.epoch:
                return f"{w.status}; {self.next_step(self.head())}".removesuffix("; ")
            self._db.run("UPDATE model SET last_version=max(last_version, ?) WHERE name=?", w.version, self.name)
            if self.board.key.public != welcomed_key(self._db):
                self._db.run("INSERT OR REPLACE INTO meta VALUES ('key', ?)", self.board.key.public)
            if w.epoch != before.epoch and before.epoch and not fresh:
                return f"epoch {w.epoch} was said before; this is epoch {before.epoch}"
            self.offered(w.resume_version if w.resume else 0)
            if w.epoch != before.epoch:
                self._db.run("UPDATE model SET epoch=?, blocked='', first_commit=base_commit WHERE name=?", w.epoch, self.name)
                gone = ""
                if before.epoch:
                    gone = self._start_over(w.head, 0, f"epoch {before.epoch} was followed by {w.epoch}", now)
                elif before.version:  # `leave_epoch` was before
                    self._snapshot_or_block(now, note="it went on in a new epoch", parent=w.head)
                return f"epoch {w.epoch}, counting on from @{w.version}{gone}"
            return self._reconcile(w, fresh, held)

    def rewind(self, w: Welcome, now: int, held: int | None = None) -> str:
        """Follow a centre whose registry went back (a backup was restored): send again what is here, else a snapshot on its head.

        held: as `welcome` has it.
        """
        with self._db.transaction():
            if self._reconcile(w, True, held) != REWOUND:
                return "in line again"
            self.doubts.reopen()
            missing = self._db.all(
                "SELECT * FROM version WHERE model=? AND version>? AND state IN ('queued','offered','stored','verified') ORDER BY version",
                self.name, w.head_version,
            )  # fmt: skip
            chain = [w.head, *(r["commit_id"] for r in missing)]
            whole = all(r["state"] != "verified" and r["parent"] == parent for r, parent in zip(missing, chain, strict=False))
            if whole:
                again = [int(r["version"]) for r in missing]
                self.outbox.offer_again(again)
                return f"the centre went back to @{w.head_version}; {said(again)} {'goes' if len(again) == 1 else 'go'} again"
            gone = self._start_over(w.head, w.head_version, f"the centre went back to @{w.head_version}", now)
            return f"the centre went back to @{w.head_version}{gone}"

    def _reconcile(self, w: Welcome, fresh: bool, held: int | None) -> str:
        known, stored = self.known(held), self._stored_row(w)
        if stored is None and w.head_version:
            if self._own(w.head):
                return f"{FOREIGN} its database went back: @{w.head_version}; waiting for receipts"
            if fresh:
                self._block(f"{FORKED}: the centre holds @{w.head_version}, which this one did not make")
            return f"{FOREIGN} it is an older copy, or another board has a copy of it: @{w.head_version}; nothing more is sent"
        if fresh and self.head().blocked.startswith(FORKED):
            self._block("")  # the centre holds what this folder made, and nothing else
        if stored is not None:
            if fresh and stored["state"] in CONCLUDED:
                self.doubts.reopen(w.head_version)  # it is the centre's head: a newer backup than the last one was restored
            self.outbox.stored(stored)
            proven = self._db.maybe(
                "SELECT * FROM version WHERE model=? AND epoch=? AND version<=? AND state='stored' ORDER BY version DESC",
                self.name, w.epoch, w.verified,
            )  # fmt: skip
            if proven is not None:
                self.verified(proven)
        return REWOUND if max(known) > w.head_version else f"known up to @{w.head_version}, verified up to @{w.verified}"

    def _stored_row(self, w: Welcome) -> Row | None:
        return self.outbox.find(w.epoch, w.head_version, w.head) if w.head_version else None

    def _start_over(self, parent: bytes, above: int, reason: str, now: int) -> str:
        """Give up all above a version, and let a snapshot go on from `parent`; return what became of them, for the log."""
        lost = self.outbox.drop_all(above, reason)
        self._tell({})
        if self.head().version:
            self._snapshot_or_block(now, note=reason, parent=parent)
        head = self.head()
        goes = f"; @{head.version} goes, a snapshot of all of it" if head.version and not head.blocked else ""
        return f"; lost there: {said(lost)}{goes}" if lost else goes

    def _tell(self, told: Mapping[str, object]) -> None:
        """Note which facts of this board the centre knows from cards; with nothing the next card tells them all."""
        self._db.run("UPDATE model SET told=? WHERE name=?", json.dumps(told), self.name)

    def _enqueue(self, sealed: Sealed, head: Head, outcome: Outcome, *, file_sha256: bytes, note: str = "") -> int:
        h, commit, body = sealed.header, sealed.commit, sealed.data
        self._db.insert(
            "version", model=self.name, version=h.version, epoch=h.epoch, state="queued", reason=note, kind=h.kind.name.lower(),
            commit_id=commit, parent=h.parent, root=h.root, file_sha256=file_sha256, bytes=len(body), **_columns(outcome),
        )  # fmt: skip
        self.outbox.enqueue(h.version, body)
        moved = self._db.run(
            "UPDATE model SET head_version=?, head_commit=?, last_version=? WHERE name=? AND head_commit=?",
            h.version, commit, h.version, self.name, head.commit,
        )  # fmt: skip
        assert moved == 1, "the head moved while an update was sealed on it"
        return h.version

    def _count_round(self, outcome: Outcome) -> None:
        self._db.run(
            "UPDATE model SET rounds=?, trained_id=?, trained_at=?, look='' WHERE name=?",
            outcome.round, outcome.trained_id, outcome.ended, self.name,
        )  # fmt: skip


def welcomed_key(database: Database) -> bytes:
    """Return the public key with which this folder was welcomed last; empty before the first time."""
    row = database.maybe("SELECT value FROM meta WHERE key='key'")
    return bytes(row[0]) if row is not None and isinstance(row[0], bytes) else b""


def _columns(outcome: Outcome) -> dict[str, object]:
    before, after = outcome.before, outcome.after
    return {
        "round": outcome.round, "mode": outcome.mode, "samples": outcome.samples, "steps": outcome.steps, "at": outcome.ended,
        "loss_before": before.loss if before else None, "accuracy_before": before.accuracy if before else None,
        "loss_after": after.loss if after else None, "accuracy_after": after.accuracy if after else None,
    }  # fmt: skip
