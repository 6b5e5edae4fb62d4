"""The one table of what may befall a board. An id is stable: it stands in logs, in `--json` and in docs/troubles.md."""

from __future__ import annotations

from dataclasses import dataclass

PAGE = "docs/troubles.md"


@dataclass(frozen=True, slots=True)
class BoardTrouble:
    """One of them. asks: what a person is asked for; empty where the agent gets over it alone."""

    id: str
    seen: str
    does: str
    asks: str = ""


_NOTHING = "starts nothing and changes nothing"
_ANEW = "set the board up anew from the folder put aside, with its key; --resume brings the centre's last model back"
_WAITS = "keeps its link, acknowledges nothing, and goes on when the disk takes writes again"

_one = BoardTrouble
TABLE = (
    _one("state-gone", "the state folder is not there", _NOTHING, _ANEW),
    _one("state-replaced", "a file, or a link that leads nowhere, stands in the place of the state folder", _NOTHING,
         "put the folder back"),
    _one("database-gone", "the state folder is there and its database is not", _NOTHING, _ANEW),
    _one("database-cut", "the database is shorter than it says that it is", f"{_NOTHING}; its log stays beside it", _ANEW),
    _one("database-damaged", "bytes of the database, or of its log, were changed", _NOTHING, _ANEW),
    _one("database-replaced", "the database is a link, a folder or no file", _NOTHING, "put the database's own file back"),
    _one("place-taken", "another thing stands where a file or a folder of the state is to be: a file for a folder, another's journal",
         _NOTHING, "move away what stands there"),
    _one("database-older", "the database knows less than what left this board: its log was deleted, or an older copy put back",
         "never builds on what it does not know; where its files are whole it goes on behind the centre's head, else it starts nothing",
         "where it starts nothing: " + _ANEW),
    _one("index-damaged", "an index of the database does not tell what its table holds", "makes the index anew from the table"),
    _one("outbox-damaged", "the bytes of an update that waits are not those that its commit names",
         "gives the update up, and those that rest on it; what they changed goes as a snapshot"),
    _one("model-damaged", "a file of the served model is not the one that the database names", _NOTHING, _ANEW),
    _one("base-damaged", "the base model's file was changed, or is gone", _NOTHING, "put the file back that init was given"),
    _one("variant-damaged", "a file of a base that is staged or soaking is not the one that the database names",
         "drops that base; where it was served, what the head names is served again"),
    _one("passive-damaged", "a file of the base that was served before is not the one that the database names",
         "drops it: there is no way back to it without fetching it; what is served is whole"),
    _one("served-gone", "served.tflite is not there, or is another thing than the link to the served model",
         "makes the link anew; what stood there is kept beside it"),
    _one("samples-gone", "the spool of samples is not there", "makes an empty one; the models are whole without it"),
    _one("samples-damaged", "the spool of samples can't be read", "puts it aside as samples.db.damaged, and makes an empty one"),
    _one("samples-replaced", "a link, or no file, stands in the place of the spool", _NOTHING, "see who may write there, and remove it"),
    _one("disk-full", "the disk takes nothing more: it is full, or over a quota", _WAITS, "make room"),
    _one("disk-read-only", "the disk is mounted read-only, or its kernel has shut it", _WAITS, "see dmesg, and mount it to be written"),
    _one("disk-failing", "the disk answers with errors", _WAITS, "see dmesg: it may be at its end"),
    _one("not-ours", "a file or folder is another user's, or its mode shuts this user out", _NOTHING, "give the command as its owner"),
    _one("key-gone", "the device's private key is not there", _NOTHING, "put the key back, or set up anew and let the new key in"),
    _one("key-damaged", "the key's file holds no key of a device", _NOTHING, "put the key back, or set up anew and let the new key in"),
    _one("key-open", "others than its owner may read the private key", _NOTHING, "close it: chmod 600"),
    _one("key-changed", "the key is another one than that with which this folder was welcomed", "says hello with it; the centre decides",
         "put the board's own key back, or let this one in: edgecloud devices add NAME FINGERPRINT --replace"),
    _one("clock-off", "the clock is more than a day from the centre's",
         "numbers nothing by a clock, and ends no wait by one; a round may come early or late",
         "set it, or let NTP"),
    _one("board-smaller", "the board has less memory than its settings, or its profile, want of it",
         "keeps budget.max_ram to half of the board's memory, and to four fifths of what its service may take",
         "lower budget.max_ram, or take the board's own profile: edgeagent board show auto"),
    _one("system-refused", "an update of the system was refused", "runs on in the system that there is",
         "edgeagent-update status says what was refused: bring one that was made and signed for this board"),
    _one("system-left", "an update of the system did not become the system that runs", "runs on in the system that there was",
         "see in its journal what kept the new one from being called good; then bring another"),
    _one("older-copy", "the centre holds versions that this folder did not make: it is an older copy, or another board has a copy",
         "sends nothing more; serves its last model", "edgeagent publish --new-epoch where this is the board's one folder"),
    _one("two-boards", "another client uses this board's name at the broker", "steps back, and looks again after a while that grows",
         "stop one of them for good"),
    _one("newer-release", "the folder was written by a later release of the agent", _NOTHING, "install that release again"),
    _one("older-release", "the folder was made before wire 1 was final", _NOTHING, "set the board up anew with its key"),
    _one("month-spent", "the bytes of this month over the link are spent",
         "sends no update until the next month; hellos, answers and receipts go on within a small allowance",
         "wait, or raise link.monthly_bytes"),
    _one("flash-spent", "the bytes of this day to the disk are spent",
         "begins no round, and goes on with none, until the next day; all else goes on", "wait, or raise budget.flash_bytes_a_day"),
)  # fmt: skip
_BY_ID = {one.id: one for one in TABLE}


def trouble(name: str) -> BoardTrouble | None:
    """Return the trouble of this id; None where there is none, as of another release."""
    return _BY_ID.get(name)
