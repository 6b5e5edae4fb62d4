"""The command line of the centre: `edgecloud`. Results on standard output, everything else on standard error."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from modelwire.errors import BadArgument, ModelWireError

from .commands.answer import Answer, dump
from .commands.authoring import inspect as authoring
from .commands.authoring import int8_head as heads
from .commands.fleet import devices as fleet
from .commands.models import card as cards
from .commands.models import forget as recipes
from .commands.models import show as models
from .commands.registry import doctor as registry
from .commands.registry import ingest
from .graft.loss import LOSSES
from .graft.optimizers import OPTIMIZERS
from .registry import FILES_FROM

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, the error class's own, 2 for usage, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    as_json = bool(getattr(args, "json", False))
    args.db = getattr(args, "db", None)
    try:
        answer: Answer = args.run(args)
        print(dump(answer.document) if as_json else answer.text, flush=True)
        if answer.error is not None:
            return _say(answer.error, as_json)
        return answer.code
    except ModelWireError as error:
        return _say(error, as_json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has gone, as `| head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # Files are named where they are known; this is for the surroundings that nobody has thought of.
        reason = error.strerror or str(error)
        where = f"{error.filename}: {reason}" if error.filename is not None else reason
        return _say(BadArgument(reason=where, fix="check the path, who may use it, and the room on its disk"), as_json)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Each --help ends with examples, which a test parses."""
    top = _Parser(
        prog="edgecloud",
        description="The centre of a fleet: takes updates in, keeps every version of every device's model, gives any of them back exactly.",
        epilog=_examples(
            "edgecloud init --fleet orchard",
            "edgecloud bases add digits.tflite",
            "edgecloud ingest --broker mqtt://127.0.0.1:1883",
            "edgecloud log pi-7",
            "edgecloud materialise pi-7@12 -o model.tflite",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common(top)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _registry_commands(commands)
    _fleet_commands(commands)
    _model_commands(commands)
    _recipe_commands(commands)
    _ingest_command(commands)
    _author_commands(commands)
    return top


def _registry_commands(commands: Any) -> None:
    one = _command(commands, "init", registry.init, "edgecloud init --fleet orchard", "edgecloud init --db /var/lib/edgecloud/fleet.db")
    one.add_argument("--fleet", default="fleet", help="name of the fleet, the first level of its topics (default: fleet)")
    one.add_argument(
        "--files-from", type=int, default=FILES_FROM, metavar="BYTES",
        help=f"keep bases and updates of this size and more as files beside the registry (default: {FILES_FROM})",
    )  # fmt: skip
    one = _command(commands, "backup", registry.back_up, "edgecloud backup monday.db", "edgecloud backup monday.db --db fleet.db --force")
    one.add_argument("out", metavar="OUT", help="file to write")
    one.add_argument("--force", action="store_true", help="replace OUT when it is there")
    one = _command(commands, "restore", registry.put_back, "edgecloud restore monday.db --db fleet.db --force")
    one.add_argument("backup", metavar="BACKUP", help="file that `edgecloud backup` wrote")
    one.add_argument("--force", action="store_true", help="move a registry that is there aside")
    one = _command(
        commands, "verify", registry.verify, "edgecloud verify --all", "edgecloud verify pi-7", "edgecloud verify pi-7/digits@12 --json"
    )
    which = one.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", metavar="DEVICE[/MODEL][@VERSION]", help="one version, or all of a device or model")
    which.add_argument("--all", action="store_true", help="every version of every device (the default)")
    one = _command(commands, "doctor", registry.doctor, "edgecloud doctor", "edgecloud doctor --broker mqtt://127.0.0.1:1883")
    one.add_argument("--broker", metavar="URL", help="mqtt[s]://HOST[:PORT]; EDGECLOUD_BROKER")
    one.add_argument("--key", metavar="FILE", help="the fleet's private key (default: fleet.key beside the registry); EDGECLOUD_KEY")
    _command(commands, "version", registry.version, "edgecloud version", "edgecloud version --json")


def _fleet_commands(commands: Any) -> None:
    bases = _group(commands, "bases", "Base models that devices start from.", fleet.list_bases, "edgecloud bases list")
    one = _command(
        bases, "add", fleet.add_base, "edgecloud bases add digits.tflite", "edgecloud bases add model.tflite --name doorbell",
        "edgecloud bases add model.tflite --name free --exact",
    )  # fmt: skip
    one.add_argument("file", metavar="FILE.tflite", help="a trainable model file")
    one.add_argument("--name", help="what to call it (default: the file's name)")
    one.add_argument("--exact", action="store_true", help="for devices that were set up with --exact: they adopt nothing")
    _command(bases, "list", fleet.list_bases, "edgecloud bases list --json")
    devices = _group(commands, "devices", "Devices, their keys, and those that wait.", fleet.list_devices, "edgecloud devices")
    key = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    one = _command(devices, "add", fleet.add_device, f"edgecloud devices add pi-7 {key}", "edgecloud devices add pi-7 ./pi-7.pub --replace")
    one.add_argument("name", metavar="NAME", help="the device's name")
    one.add_argument("key", metavar="PUBKEY", help="its public key: 64 hexadecimal digits, or a file that holds them")
    one.add_argument("--replace", action="store_true", help="revoke the key that spoke for it until now")
    one = _command(devices, "revoke", fleet.revoke_device, "edgecloud devices revoke pi-7")
    one.add_argument("name", metavar="NAME", help="the device's name")
    _command(devices, "list", fleet.list_devices, "edgecloud devices list --json")
    snapshot = _group(commands, "snapshot", "Ask devices for their whole state.", None, "edgecloud snapshot request pi-7")
    one = _command(snapshot, "request", fleet.request_snapshot, "edgecloud snapshot request pi-7/digits")
    one.add_argument("name", metavar="DEVICE[/MODEL]")
    one = _command(
        commands, "annotate", fleet.annotate,
        "edgecloud annotate pi-7@12 'sensor was covered that week'", "edgecloud annotate base:digits 'trained on the 2024 set'",
    )  # fmt: skip
    one.add_argument("name", metavar="OBJECT", help="DEVICE, DEVICE/MODEL, DEVICE[/MODEL]@VERSION or base:NAME")
    one.add_argument("text", metavar="TEXT")


def _model_commands(commands: Any) -> None:
    one = _command(commands, "log", models.log, "edgecloud log pi-7", "edgecloud log pi-7/digits --json")
    one.add_argument("name", metavar="DEVICE[/MODEL]")
    one = _command(commands, "show", models.show, "edgecloud show pi-7", "edgecloud show pi-7/digits@12", "edgecloud show pi-7@base")
    one.add_argument("name", metavar="DEVICE[/MODEL][@VERSION]", help="a device, or one version: a number, latest or base")
    one = _command(commands, "diff", models.diff, "edgecloud diff pi-7@3 pi-8@7", "edgecloud diff pi-7@base pi-7@latest --json")
    one.add_argument("first", metavar="A@VERSION")
    one.add_argument("second", metavar="B@VERSION")
    one = _command(
        commands, "card", cards.card,
        "edgecloud card pi-7", "edgecloud card pi-7/digits@12 --json", "edgecloud card --fleet --model digits",
        "edgecloud card pi-7 --against fleet", "edgecloud card pi-7 --against pi-8",
    )  # fmt: skip
    one.add_argument("name", nargs="?", metavar="DEVICE[/MODEL][@VERSION]", help="without a version: all of the model's updates together")
    one.add_argument("--fleet", action="store_true", help="of all devices together")
    one.add_argument("--model", metavar="MODEL", help="with --fleet: which model, where there are several")
    one.add_argument("--against", metavar="OTHER", help="say how unlike another's data it is: `fleet`, which is all others, or a name")
    one = _command(
        commands, "materialise", models.materialise_to,
        "edgecloud materialise pi-7@12 -o model.tflite", "edgecloud materialise pi-7/digits -o weights.npz",
        "edgecloud materialise pi-7@latest -o weights.safetensors",
    )  # fmt: skip
    one.add_argument("name", metavar="DEVICE[/MODEL][@VERSION]", help="without a version: the latest")
    one.add_argument("-o", "--output", required=True, metavar="FILE", help="FILE.tflite, FILE.npz or FILE.safetensors; replaced whole")


def _recipe_commands(commands: Any) -> None:
    one = _command(
        commands, "replay", recipes.replay,
        "edgecloud replay pi-7@12", "edgecloud replay pi-7/doorbell@12 --set rate=0.01 --set steps=200 --json",
        "edgecloud replay pi-7@12 --set optimizer=adam -o adam.tflite",
    )  # fmt: skip
    one.add_argument("name", metavar="DEVICE[/MODEL]@VERSION", help="a version that came as a recipe")
    one.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE",
        help="train with another setting instead, such as rate (or lr), steps, batch, optimizer, decay, seed; may be repeated",
    )  # fmt: skip
    one.add_argument("-o", "--output", metavar="FILE", help="write the result: FILE.tflite, FILE.npz or FILE.safetensors; replaced whole")
    one = _command(
        commands, "forget", recipes.forget,
        "edgecloud forget pi-7@12 --rows 3,8,10-20", "edgecloud forget pi-7/doorbell@12 --rows 3 -o without.tflite --json",
        "edgecloud forget pi-7@12 --rows 3,8 --send", "edgecloud forget pi-7@12 --rows 0-9 --at-version",
    )  # fmt: skip
    one.add_argument("name", metavar="DEVICE[/MODEL]@VERSION", help="a version that came as a recipe")
    one.add_argument("--rows", required=True, metavar="ROWS", help="rows of that recipe, from 0: 3,8,10-20")
    one.add_argument(
        "--at-version", action="store_true", help="only what this version would have been without them, on the parent that it has"
    )
    one.add_argument("--send", action="store_true", help="ask the device to drop these samples and to take the model over as a new version")
    one.add_argument("-o", "--output", metavar="FILE", help="write the result: FILE.tflite, FILE.npz or FILE.safetensors; replaced whole")


def _ingest_command(commands: Any) -> None:
    one = _command(
        commands, "ingest", ingest.ingest,
        "edgecloud ingest --broker mqtt://127.0.0.1:1883", "edgecloud ingest --once --idle 5",
        "edgecloud ingest --broker mqtts://centre@broker:8883 --password-file secret --ca ca.pem",
    )  # fmt: skip
    one.add_argument("--broker", metavar="URL", help="mqtt[s]://[USER@]HOST[:PORT] (default: mqtt://127.0.0.1:1883); EDGECLOUD_BROKER")
    one.add_argument("--once", action="store_true", help="end when nothing has come for a while and all is rebuilt")
    one.add_argument("--idle", default="3", metavar="SECONDS", help="how long that while is (default: 3)")
    one.add_argument("--key", metavar="FILE", help="the fleet's private key (default: fleet.key beside the registry); EDGECLOUD_KEY")
    one.add_argument("--client-id", metavar="ID", help="MQTT client id, kept for ever (default: edgecloud.FLEET); EDGECLOUD_CLIENT_ID")
    one.add_argument("--password-file", metavar="FILE", help="file with the broker's password alone; EDGECLOUD_PASSWORD_FILE")
    one.add_argument("--ca", metavar="FILE", help="certificates that sign the broker's; EDGECLOUD_CA")
    one.add_argument("--cert", metavar="FILE", help="this centre's certificate; EDGECLOUD_CERT")
    one.add_argument("--cert-key", metavar="FILE", help="the private key of --cert; EDGECLOUD_CERT_KEY")
    one.add_argument("--resend", metavar="SECONDS", help="repeat a command without an answer after this (default: 30); EDGECLOUD_RESEND")
    one.add_argument("--log", choices=("text", "json"), help="form of the log on standard error (default: text); EDGECLOUD_LOG")
    one.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default: info; EDGECLOUD_LOG_LEVEL")


def _graft_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--train", nargs="+", default=["head"], metavar="LAYER",
        help="the deepest mode: head, last:N, all, or names of layers or weights as `edgecloud inspect` lists them (default: head)",
    )  # fmt: skip
    one.add_argument(
        "--modes", nargs="+", default=[], metavar="MODE",
        help="cheaper modes in the same file, between which the board chooses by its budget: head, last:N, or the name of a layer",
    )  # fmt: skip
    _step_arguments(one)
    one.add_argument("--add-class", action="append", default=[], metavar="NAME", help="a class to learn besides; may be repeated")
    one.add_argument("--score", action="store_true", help="let an auto-encoder score samples, against a threshold that the device learns")
    one.add_argument("-o", "--output", required=True, metavar="FILE", help="the trainable .tflite to write; replaced whole")


def _author_commands(commands: Any) -> None:
    one = _command(
        commands, "inspect", authoring.inspect,
        "edgecloud inspect stock.tflite", "edgecloud inspect stock.tflite --optimizer adam --batch 8 --gmacs 2.5 --json",
    )  # fmt: skip
    one.add_argument("file", metavar="FILE.tflite", help="any model file; nothing of it is run")
    _step_arguments(one)
    one.add_argument("--gmacs", type=float, metavar="N", help="what the board's core multiplies: 10^9 a second (default: this machine's)")
    one = _command(
        commands, "graft", authoring.graft_to,
        "edgecloud graft stock.tflite -o trainable.tflite", "edgecloud graft mobilenet.tflite --train last:3 --batch 8 -o doorbell.tflite",
        "edgecloud graft mobilenet.tflite --train all --modes head last:3 --optimizer adam -o doorbell.tflite",
        "edgecloud graft vibration.tflite --train all --loss mse --optimizer adam --score -o turbine.tflite",
        "edgecloud graft visitors.tflite --add-class postman --add-class cat -o visitors2.tflite",
    )  # fmt: skip
    one.add_argument("file", metavar="STOCK.tflite", help="an inference-only float32 or float16 model of one input")
    _graft_arguments(one)
    one = _command(
        commands, "author", authoring.author_to,
        "edgecloud author doorbell.keras --train last:3 --optimizer momentum -o doorbell.tflite",
        "edgecloud author exported/ --train all --modes head last:3 --batch 8 -o doorbell.tflite --json",
    )  # fmt: skip
    one.add_argument("file", metavar="MODEL", help="a .keras or .h5 file, or the folder of a SavedModel; needs the extra [author]")
    _graft_arguments(one)


    one = _command(
        commands, "pack", authoring.pack_to,
        "edgecloud pack converted.tflite -o doorbell.tflite", "edgecloud pack converted.tflite --name doorbell -o doorbell.tflite",
    )  # fmt: skip
    one.add_argument("file", metavar="FILE.tflite", help="a model with train signatures, as a converter made it")
    one.add_argument("--name", help="a name for people, written into the file")
    one.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write; replaced whole")


    shown = "edgecloud int8-head expose wakeword.tflite -o seen.tflite"
    group = _group(commands, "int8-head", "The head of an int8 classifier, retrained in place.", None, shown)
    one = _command(group, "expose", heads.expose, shown)
    one.add_argument("file", metavar="FILE.tflite", help="a classifier of int8, with or without state from call to call")
    one.add_argument("--target", metavar="OUTPUT", help="which of several outputs (default: the first)")
    one.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write; replaced whole")
    one = _command(group, "fit", heads.fit, "edgecloud int8-head fit wakeword.tflite rows.npz -o newword.tflite")
    one.add_argument("file", metavar="FILE.tflite", help="the classifier whose head is retrained")
    one.add_argument("rows", metavar="ROWS.npz", help="x: rows that the exposed model gave, int8 or what they stand for; y: the classes")
    one.add_argument("--target", metavar="OUTPUT", help="which of several outputs (default: the first)")
    one.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write; replaced whole")


def _step_arguments(one: argparse.ArgumentParser) -> None:
    one.add_argument("--loss", choices=LOSSES, default="auto", help="auto: cross-entropy behind a softmax or logistic, else mse (default)")
    one.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="default: sgd; the others keep slots in the file")
    one.add_argument("--batch", type=int, default=16, metavar="B", help="samples of one training step (default: 16)")
    one.add_argument("--target", metavar="OUTPUT", help="which of several outputs is trained (default: the first)")


class _Parser(argparse.ArgumentParser):
    """Says usage errors in the form that was asked for."""

    def error(self, message: str) -> NoReturn:
        if "--json" in sys.argv[1:]:
            said = {"error": "Usage", "code": USAGE_ERROR, "message": message, "hint": f"{self.prog} --help"}
            print(json.dumps(said), file=sys.stderr)
            raise SystemExit(USAGE_ERROR)
        super().error(message)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], Answer], *examples: str) -> argparse.ArgumentParser:
    said = (run.__doc__ or "").strip()
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=said.split(";")[0].rstrip("."), description=said, epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _common(made)
    made.set_defaults(run=run)
    return made


def _group(commands: Any, name: str, said: str, run: Callable[[argparse.Namespace], Answer] | None, example: str) -> Any:
    made = commands.add_parser(
        name, help=said.rstrip("."), description=said, epilog=_examples(example), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _common(made)
    if run is not None:
        made.set_defaults(run=run)
    return made.add_subparsers(title="commands", metavar="COMMAND", required=run is None)


def _common(made: argparse.ArgumentParser) -> None:
    # SUPPRESS: what stands before the command must not be overwritten by a default that stands after it.
    made.add_argument("--db", default=argparse.SUPPRESS, metavar="FILE", help="the registry (default: fleet.db); EDGECLOUD_DB")
    made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _say(error: ModelWireError, as_json: bool) -> int:
    if as_json:
        said = {"error": type(error).__name__, "code": error.code, "message": error.message, "hint": error.next_step}
        print(json.dumps(said), file=sys.stderr, flush=True)
    else:
        hint = f"\n  try: {error.next_step}" if error.next_step else ""
        print(f"edgecloud: {error.message}{hint}", file=sys.stderr, flush=True)
    return error.code


if __name__ == "__main__":
    raise SystemExit(main())
