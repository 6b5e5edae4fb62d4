"""Six worlds in which cars read digits. What a row looks like follows from its tags and the car's lens; how often, from the world."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from modelwire.cards.card import Card, card_of
from modelwire.cards.sketch import Channel
from tests.worlds import F32, MODELS, Labels, Rng, _resample

CLASSES = 10
TAGS = ("light", "weather", "region")
CHANNELS = (Channel("brightness", 0.25, -2), Channel("contrast", 0.25, -3), Channel("edges", 0.2, -3))
HOURS = {"day": tuple(range(9, 17)), "dusk": (6, 7, 8, 17, 18, 19), "night": (20, 21, 22, 23, 0, 1, 2, 3, 4, 5)}
LIGHT, WEATHER, REGION = (
    {"day": 0.6, "dusk": 0.15, "night": 0.25}, {"clear": 0.6, "fog": 0.15, "rain": 0.25}, {"alps": 0.25, "coast": 0.25, "lowland": 0.5},
)  # fmt: skip
LENSES = {  # the map from a pixel's place to the picture's, about the centre: rows down, columns right
    "plain": ((1.0, 0.0), (0.0, 1.0)),
    "wide": ((1.15, 0.45), (-0.3, 1.1)),  # another lens, hung askew
    "mirror": ((1.0, 0.0), (0.0, -1.0)),  # it looks by way of a mirror
}


@dataclass(frozen=True, slots=True)
class PlantedWorld:
    """How often what is met. Shares by value; labels: weights of the classes, even when empty."""

    name: str
    light: Mapping[str, float] = field(default_factory=lambda: LIGHT)
    weather: Mapping[str, float] = field(default_factory=lambda: WEATHER)
    region: Mapping[str, float] = field(default_factory=lambda: REGION)
    labels: tuple[float, ...] = ()
    lens: str = "plain"
    board: str = "pi-4"
    biases: tuple[str, ...] = ()  # fields of the cards that tell it from the others, the plainest first


WORLDS = {
    world.name: world
    for world in (
        PlantedWorld("plain"),
        PlantedWorld("night", light={"day": 0.02, "dusk": 0.03, "night": 0.95}, biases=("tags.light", "hours")),
        PlantedWorld("rain", weather={"clear": 0.04, "fog": 0.02, "rain": 0.94}, biases=("tags.weather",)),
        PlantedWorld(
            "alps", region={"alps": 1.0}, labels=(4, 4, 4, 1, 1, 1, 1, 0.2, 0.2, 0.2), biases=("tags.region", "labels")
        ),
        PlantedWorld("lens", lens="wide", board="cam-wide", biases=("tags.board", "channels.contrast")),
        PlantedWorld("mirror", lens="mirror"),  # no field of the cards tells it
    )
}  # fmt: skip
BIASES = tuple(name for name, world in WORLDS.items() if name != "plain")


@dataclass(frozen=True, slots=True)
class SeenRows:
    """Rows as a car sees them. x: float32 [n, 64], about 0 to 1; y: classes [n]; tags: by name [n] strings; hours: [n]."""

    x: F32
    y: Labels
    tags: Mapping[str, NDArray[np.str_]]
    hours: Labels

    def __len__(self) -> int:
        return len(self.y)

    def card(self, board: str, isa: str = "aarch64", runtime: str = "tflite-runtime 2.14.0") -> Card:
        """Return the data card of these rows, as an agent makes it with three channels of the picture."""
        n = len(self.y)
        facts = {"board": {board: n}, "isa": {isa: n}, "runtime": {runtime: n}}
        tags = dict(sorted({**{name: _counts(values) for name, values in self.tags.items()}, **facts}.items()))
        if not self.x.size:
            return replace(card_of(n, labels=self.y, hours=self.hours), tags=tags)
        pictures = self.x.reshape(-1, 8, 8)
        values = np.stack([pictures.mean((1, 2)), pictures.std((1, 2)), np.abs(np.diff(pictures, axis=2)).mean((1, 2))], 1)
        return replace(card_of(n, labels=self.y, hours=self.hours, channels=CHANNELS, values=values), tags=tags)


def _counts(values: NDArray[np.str_]) -> dict[str, int]:
    kinds, counts = np.unique(values, return_counts=True)
    return {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)}


def seen(
    world: PlantedWorld, rng: Rng, n: int, *, side: str = "train", jitter: float = 0.0, streaky: float = 0.0, pictures: bool = True
) -> SeenRows:
    """Return n rows of a world. side: "test" for pictures that no training has seen, here or of the base.

    jitter: degrees that this car's camera is turned. streaky: how much one call's shares of light, weather and region wander from
    the world's, as those of one day do; 0 not at all, 0.1 visibly. pictures: False leaves x empty; all else is the same.
    """
    tags = {name: _drawn(rng, getattr(world, name), n, streaky) for name in TAGS}
    hours = np.zeros(n, np.int64)
    for light, of in HOURS.items():
        hours[tags["light"] == light] = rng.choice(of, int((tags["light"] == light).sum()))
    images, labels = _load(side)
    weights = np.array(world.labels or (1.0,) * CLASSES)[labels] / np.bincount(labels, minlength=CLASSES)[labels]
    pick = rng.choice(len(labels), n, p=weights / weights.sum())
    x = _pictures(world, rng, images[pick], tags, jitter) if pictures else np.zeros((n, 0), np.float32)
    return SeenRows(x, labels[pick], tags, hours)


def _drawn(rng: Rng, shares: Mapping[str, float], n: int, streaky: float) -> NDArray[np.str_]:
    values, weights = np.array(list(shares)), np.array(list(shares.values()), np.float64)
    weights /= weights.sum()
    if streaky and len(values) > 1:
        weights = rng.dirichlet(weights / streaky)
    return rng.choice(values, n, p=weights)


def _pictures(world: PlantedWorld, rng: Rng, images: NDArray[np.float64], tags: Mapping[str, NDArray[np.str_]], jitter: float) -> F32:
    """Return images [n, 8, 8], 0 to 1, as they are seen: through the lens, in the light, behind the weather, before the region's ground."""
    n, turn = len(images), np.deg2rad(jitter)
    matrix = np.array(LENSES[world.lens]) @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    light, weather, region = (tags[name][:, None, None] for name in TAGS)
    down, across = np.meshgrid(np.linspace(0, 1, 8), np.linspace(0, 1, 8), indexing="ij")
    ground = np.where(region == "alps", 0.3 * down, np.where(region == "coast", 0.2 * across, 0.0))
    streaks = (rng.random((n, 1, 8)) < 0.3) * rng.uniform(0.3, 0.6, (n, 1, 8))
    picture = np.maximum(_resample(images, matrix), ground)
    picture = np.where(weather == "rain", np.maximum(0.8 * picture, streaks), picture)
    picture = np.where(weather == "fog", 0.35 + 0.45 * picture, picture)
    lamp = np.exp(-((down - 0.8) ** 2 + (across - 0.3) ** 2) / 0.3)  # headlights: a bright spot below, dark corners
    picture = np.where(light == "night", 0.45 * lamp * (0.25 + 0.75 * picture), np.where(light == "dusk", 0.65 * picture, picture))
    return np.asarray(picture + 0.04 * rng.standard_normal(picture.shape), np.float32).reshape(n, 64)


@functools.cache
def _load(side: str) -> tuple[NDArray[np.float64], Labels]:
    with np.load(MODELS / "data" / "digits.npz") as data:
        return data[f"{side}_x"].astype(np.float64) / 16, data[f"{side}_y"].astype(np.int64)
