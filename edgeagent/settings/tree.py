"""Every setting of the agent as one tree of frozen dataclasses, each with its default, its unit and what it is for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from modelwire import limits
from modelwire.cards.privacy import FIELDS, Privacy

T = TypeVar("T")
AUTO = "auto"
PROFILES = ("ethernet", "wifi", "lte", "lte-sleeping", "nb-iot", "lora-sf7")  # of links, as modelwire.planning knows them


def setting(
    default: T, doc: str, *, unit: str = "", least: float | None = None, most: float | None = None, choices: tuple[str, ...] = ()
) -> T:
    """Return a dataclass field that knows what it is for. unit: "seconds", "bytes" or "budget" for values with one; "words" for lists."""
    made: Any = field(default=default, metadata={"doc": doc, "unit": unit, "least": least, "most": most, "choices": choices})
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Who this device is, and where it keeps its state."""

    name: str = setting("", "This device's name: 1 to 64 of a-z 0-9 . _ -")
    fleet: str = setting("", "The fleet that it belongs to: the first level of its topics.")
    dir: str = setting("state", "Folder of everything the agent must not lose, relative to this file.")
    key: str = setting("device.key", "The device's private key, edge-device-key:..., readable by the agent alone.")
    fleet_key: str = setting("fleet.pub", "The fleet's root key and id, edge-fleet-pub:...: only what leads back to it is believed.")
    claim: str = setting("device.claim", "File with the token that lets this device in by itself, edge-claim:...; none: the operator does.")
    serial: str = setting("", "The board's serial number, which a claim may list; empty means what its firmware says.")


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How the centre is reached."""

    broker: str = setting("mqtt://127.0.0.1:1883", "The MQTT broker: mqtt://HOST[:PORT] or mqtts://HOST[:PORT].")
    protocol: str = setting("auto", "MQTT version; auto tries 5 and falls back to 3.1.1.", choices=("auto", "5", "3.1.1"))
    client_id: str = setting("", "MQTT client id; empty means FLEET.DEVICE.")
    keepalive: float = setting(60.0, "A silent link is given up after one and a half times this.", unit="seconds", least=5, most=65535)
    connect_timeout: float = setting(10.0, "How long one attempt to connect may take.", unit="seconds", least=0.5, most=300)
    reconnect_min: float = setting(
        1.0, "First pause after a lost link; it doubles, with jitter. After a link that was well it is up to 5 times this.",
        unit="seconds", least=0.05,
    )  # fmt: skip
    reconnect_max: float = setting(120.0, "Longest pause between attempts.", unit="seconds", least=0.05)
    session_expiry: float = setting(7 * 86400.0, "How long the broker keeps answers (MQTT 5).", unit="seconds", most=2**32 - 2)
    resend: float = setting(30.0, "Pause before an update without a receipt goes again; it doubles.", unit="seconds", least=0.05)
    resend_max: float = setting(3600.0, "Longest pause between two sendings of one update.", unit="seconds", least=0.05)
    hello_every: float = setting(3600.0, "How often the device says what it has once the centre has answered.", unit="seconds", least=1)
    resume_wait: float = setting(
        86_400.0, "How long a model of a board set up with --resume waits for its last version before it trains; 0: it trains at once.",
        unit="seconds", least=0,
    )  # fmt: skip
    profile: str = setting(
        "ethernet", "What sending costs here: wifi, lte-sleeping and nb-iot pay for waking up, so small updates may wait and go as one.",
        choices=PROFILES,
    )  # fmt: skip
    window: int = setting(4, "Updates on their way without a receipt, per model.", least=1, most=8)
    part_bytes: int = setting(
        limits.DEFAULT.part, "Largest message; larger updates travel in parts.", unit="bytes", least=2048, most=limits.DEFAULT.part
    )
    monthly_bytes: int = setting(
        0, "Most bytes over the link in a calendar month (UTC), both ways, as estimated: messages, MQTT, TCP/IP, pings; 0: no limit.",
        unit="bytes", least=0,
    )  # fmt: skip
    user: str = setting("", "User name at the broker; empty means none.")
    password_file: str = setting("", "File that holds the password alone, readable by the agent alone (mode 600).")
    tls_ca: str = setting("", "Certificates that sign the broker's; empty means the system's.")
    tls_cert: str = setting("", "This device's certificate for the broker.")
    tls_key: str = setting("", "The private key of that certificate.")


@dataclass(frozen=True, slots=True)
class BoardSettings:
    """Which board this is."""

    name: str = setting("", "Its profile, from edgeagent board list, which doctor compares it with; auto: by what it says; empty: none.")
    thermal_zones: tuple[str, ...] = setting(
        (), "Thermal zones that budget.max_celsius goes by, by their types as the kernel names them; none: the hottest of all.",
        unit="words",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """When and how a round of training is done, and what its guard lets pass. A model may override each."""

    optimizer: str = setting("", "In mode features; empty means the model file's own.", choices=("", "sgd", "momentum", "adam"))
    learning_rate: float = setting(
        0.0, "Step size of the optimizer; 0: what the model's file suggests for the mode, or a customary one.", least=0
    )
    epochs: int = setting(5, "Passes over the samples in one round.", least=1, most=100000)
    every: float = setting(6 * 3600.0, "A round is due after this, when there are samples.", unit="seconds", least=0)
    min_samples: int = setting(32, "No round with fewer samples than this.", least=2)
    min_new_samples: int = setting(64, "A round is due at once when so many new samples have come; 0 means never.", least=0)
    held_out: float = setting(0.2, "Share of the samples that judges a round and is never trained on.", least=0.01, most=0.9)
    mode: str = setting(
        "auto",
        "What is trained: features (the head, on kept features), a mode of the file (head, last:3, all), or auto: the deepest that fits.",
    )
    margin: float = setting(0.02, "A round is rejected when its held-out loss is worse by more than this.", least=0)
    balance: bool = setting(True, "Where classes are unevenly many, an epoch draws all classes about equally often.")
    when: str = setting(
        "due", "due: train whenever a round is due. pays: look first, and wait while the model does as well as ever on what it sees.",
        choices=("due", "pays"),
    )  # fmt: skip
    drift_loss: float = setting(
        0.1, "With pays: train when the loss on new samples is above the last version's by more than this.", least=0
    )
    drift_psi: float = setting(
        0.25, "With pays: train when the labels or a channel of the card moved by more than this, and by more than chance moves them.",
        least=0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What training may take of the board, and when. A model may override each."""

    max_ram: int = setting(0, "Most resident memory of the agent while it trains; 0 means no limit.", unit="bytes", least=0)
    max_cpu: float = setting(1.0, "Most of one core that training takes: it rests between steps.", least=0.01, most=1)
    max_seconds: float = setting(0.0, "Most time that a round's training takes, rests included; 0: no limit.", unit="seconds", least=0)
    max_celsius: float = setting(0.0, "Training waits at this temperature until it is 5 degrees cooler; 0 means never.", least=0, most=150)
    on_battery: str = setting("train", "What to do while the board runs on its battery.", choices=("train", "pause"))
    window: str = setting("", "Local times at which it may train, such as 22:00-06:00, 12:00-13:00; empty means always.")
    flash_bytes_a_day: int = setting(
        0, "Most bytes that the agent writes to its disk in a day, of all its models; 0 means no limit.", unit="bytes", least=0
    )


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """What an update may cost. A model may override each."""

    kind: str = setting(
        "auto",
        "auto decides by cost (link.profile, prices) and says why: edgeagent why. delta sends what changed,"
        " or a snapshot where that is smaller; recipe sends FEATURES OF THE SAMPLES and how they were trained on "
        "(mode features); recipe-if-smaller does so only where the same version as a delta or a snapshot takes more bytes.",
        choices=("auto", "delta", "recipe", "recipe-if-smaller"),
    )  # fmt: skip
    recipes: bool = setting(False, "With auto: whether a recipe may go, which sends FEATURES OF THE SAMPLES (mode features).")
    wait_most: float = setting(
        86_400.0, "With auto: how long updates wait for each other at most before they go; 0: none waits.", unit="seconds", least=0
    )
    checkpoints: int = setting(0, "A recipe tells its root after every so many steps, 32 bytes each; 0: none.", least=0)
    density: float = setting(0.0075, "Largest share of the weights that one update changes; calm rounds change less.", least=1e-6, most=1)
    max_bytes: int = setting(
        90 * limits.KIB, "Largest update of one round: a size, or what a link charges by: 1 part (96 KiB), 3 units (of 5 kB).",
        unit="budget", least=512, most=limits.DEFAULT.container,
    )  # fmt: skip
    coalesce_after: int = setting(8, "More waiting updates than this become one while the link is down.", least=1)

    @property
    def by_recipe(self) -> bool:
        """Whether rounds train on what a recipe can say."""
        return self.kind in ("recipe", "recipe-if-smaller") or (self.planned and self.recipes)

    @property
    def planned(self) -> bool:
        """Whether each update's kind and time are decided by what they cost."""
        return self.kind == AUTO

    @property
    def recipe_always(self) -> bool:
        """Whether a recipe is sent whatever it costs: replay and forgetting need one for each version."""
        return self.kind == "recipe"


@dataclass(frozen=True, slots=True)
class PricesSettings:
    """What update.kind = "auto" weighs, in one currency: euros by default. Only their ratios count. A model may override each."""

    per_byte: float = setting(1e-7, "A byte that is sent: 0.10 a megabyte; contracts for machines ask 0.05 to 1.", least=0, most=1e12)
    per_joule: float = setting(5e-5, "A joule, as of a lithium cell; one from the mains is 600 times cheaper.", least=0, most=1e12)
    per_byte_month: float = setting(2.3e-11, "A byte that the centre keeps for a month.", least=0, most=1e12)
    per_second: float = setting(1e-5, "A second in which the centre recovers a version.", least=0, most=1e12)
    per_accuracy: float = setting(1.0, "All of a version's accuracy; a point of it is a hundredth.", least=0, most=1e12)
    per_hour_waiting: float = setting(1e-5, "An hour that the centre goes without one update.", least=0, most=1e12)


@dataclass(frozen=True, slots=True)
class AnomalySettings:
    """From which score on a sample is an anomaly, for models that score samples. A model may override each."""

    quantile: float = setting(0.99, "Share of held-out samples with scores below the one that makes the threshold.", least=0.5, most=1)
    margin: float = setting(1.5, "The threshold is this times that score.", least=1, most=1000)


@dataclass(frozen=True, slots=True)
class CardSettings:
    """What the data card beside each update sketches of the samples. A model may override it."""

    channels: tuple[str, ...] = setting(
        ("x.mean", "x.deviation"),
        "NAME[:CENTRE[:SCALE[:BOUND]]] each: x.mean, x.deviation, x.least, x.most of all numbers of a sample, or x.N for its Nth.",
        unit="words",
    )


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """What is told of the samples beside an update: counts and sums, never a sample. A model may override each."""

    card: bool = setting(True, "Whether a data card goes with each update.")
    leave: tuple[str, ...] = setting(
        FIELDS, "Fields of the card that leave the device; single ones as tags.weather or channels.x.mean.", unit="words"
    )
    least: int = setting(5, "Counts below this are left out.", least=0)
    epsilon: float = setting(0.0, "Noise on all counts and sums of a card: the smaller, the more; 0 means none.", least=0, most=2.0**20)

    def rules(self) -> Privacy:
        """Return what `leaving` goes by. Raises Malformed when a field is none of a card's."""
        return Privacy(self.leave, self.least, self.epsilon or None)


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """What may come down: other bases that the fleet's root key vouches for. A model may override each."""

    accept: str = setting(
        "auto", "auto takes a variant over as its rollout says; ask waits for edgeagent desired accept; never leaves this board out.",
        choices=("auto", "ask", "never"),
    )  # fmt: skip
    max_bytes: int = setting(0, "A variant whose file is larger is refused; 0: no limit.", unit="bytes", least=0)
    http: bool = setting(True, "Whether a file may be fetched from the addresses of a rollout; false refuses one that lies there alone.")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The models on this device."""

    history: int = setting(0, "Keep the served files of so many versions as history/VERSION.tflite.", least=0)


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """Updates on their way to the centre."""

    max_bytes: int = setting(16 * limits.MIB, "Training stops when more waits than this.", unit="bytes", least=4096)


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """The bounds of each model's samples. Within them each class and context has an equal share."""

    max_samples: int = setting(2000, "Samples that are kept.", least=2)
    max_bytes: int = setting(64 * limits.MIB, "Bytes of samples that are kept.", unit="bytes", least=1024)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the agent says on standard error."""

    level: str = setting("info", "The least that is worth a line.", choices=("debug", "info", "warning", "error"))
    format: str = setting("text", "text for people, json for machines.", choices=("text", "json"))


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model of this device, with the settings that hold for it."""

    name: str
    train: TrainSettings
    update: UpdateSettings
    anomaly: AnomalySettings = AnomalySettings()
    budget: BudgetSettings = BudgetSettings()
    card: CardSettings = CardSettings()
    privacy: PrivacySettings = PrivacySettings()
    prices: PricesSettings = PricesSettings()
    deploy: DeploySettings = DeploySettings()
    profile: str = "ethernet"  # of the link, which all models share


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole tree, as it holds for this run."""

    device: DeviceSettings = DeviceSettings()
    board: BoardSettings = BoardSettings()
    link: LinkSettings = LinkSettings()
    train: TrainSettings = TrainSettings()
    budget: BudgetSettings = BudgetSettings()
    update: UpdateSettings = UpdateSettings()
    anomaly: AnomalySettings = AnomalySettings()
    card: CardSettings = CardSettings()
    privacy: PrivacySettings = PrivacySettings()
    prices: PricesSettings = PricesSettings()
    deploy: DeploySettings = DeploySettings()
    store: StoreSettings = StoreSettings()
    outbox: OutboxSettings = OutboxSettings()
    spool: SampleSettings = SampleSettings()
    log: LogSettings = LogSettings()
    models: tuple[ModelSettings, ...] = ()

    def model(self, name: str) -> ModelSettings:
        """Return the settings of the model `name`. Raises KeyError."""
        return {m.name: m for m in self.models}[name]


SECTIONS: dict[str, type[Any]] = {
    "device": DeviceSettings, "board": BoardSettings, "link": LinkSettings, "train": TrainSettings, "budget": BudgetSettings,
    "update": UpdateSettings, "anomaly": AnomalySettings, "card": CardSettings, "privacy": PrivacySettings, "prices": PricesSettings,
    "deploy": DeploySettings, "store": StoreSettings, "outbox": OutboxSettings, "spool": SampleSettings, "log": LogSettings,
}  # fmt: skip
PER_MODEL = ("train", "budget", "update", "anomaly", "card", "privacy", "prices", "deploy")


def keys() -> list[str]:
    """Return every setting as section.key, in the order in which they are written down."""
    return [f"{section}.{f.name}" for section, cls in SECTIONS.items() for f in fields(cls)]
