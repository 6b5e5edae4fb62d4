"""The negative vectors of a recipe's array, its layers, its head and its checkpoints: R1 to R13, R30 to R33."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwire.wire import cbor

from .recipe_cases import B1, DEEP, W1, Case, good, of, of_head, put

_FLOATS = ("rate", "rate_end", "factor", "decay", "beta1", "beta2", "epsilon")
_TYPES: dict[str, Any] = {"a float": 1.0, "true": True, "null": None, "text": "1"}  # for an integer


def cases() -> Iterator[Case]:
    """Yield them all."""
    for part in (_array, _layers, _head, _floats, _hidden, _numbers, _ranges, _checkpoints):
        yield from part()


def _array() -> Iterator[Case]:
    data = good("softmax").encode()
    yield Case("no bytes", ("R1",), "Malformed", "recipe", b"", DEEP, data, DEEP)
    yield Case("a byte behind the array", ("R1",), "Malformed", "recipe", data + b"\0", DEEP, data, DEEP)
    yield Case("the array cut by a byte", ("R1",), "Malformed", "recipe", data[:-1], DEEP, data, DEEP)
    yield Case("two arrays", ("R1",), "Malformed", "recipe", data + data, DEEP, data, DEEP)
    yield of("R1", "a map", lambda v: {"head": v[2]})
    yield of("R1", "the bytes of the array", cbor.encode)
    yield of("R1", "an array of five", lambda v: v[:5])
    yield of("R1", "an array of seven", lambda v: v.append(None))
    for name, number in {"0": 0, "2": 2, "minus one": -1, **_TYPES}.items():
        yield of("R1", f"format {name}", put(0, number))
    for name, number in {"0": 0, "minus one": -1, **_TYPES}.items():
        yield of("R2", f"trainer {name}", put(1, number))
    for number in (2, 3, 2**64 - 1):
        yield of("R3", f"trainer {number}", put(1, number), "UnsupportedWire")


def _layers() -> Iterator[Case]:
    one = [W1, B1, 1]
    yield of("R4", "no layers", put(3, []))
    yield of("R4", "four layers", put(3, [one] * 4))
    yield of("R4", "layers that are null", put(3, None))
    yield of("R4", "layers that are a map", put(3, {"0": one}))
    yield of("R4", "layers that are bytes", put(3, bytes(one)))
    yield of("R5", "a layer of two", put(3, [one[:2]]))
    yield of("R5", "a layer of four", put(3, [[*one, 0]]))
    yield of("R5", "a layer that is an integer", put(3, [W1]))
    yield of("R5", "a second layer that is null", put(3, [one, None]), on="hidden")
    for place, what in enumerate(("matrix", "biases", "inputs first")):
        for name, value in _TYPES.items():
            yield of("R5", f"{what} {name}", put(3, [[*one[:place], value, *one[place + 1 :]]]))
    for flag in (-1, 2):
        yield of("R5", f"inputs first {flag}".replace("-1", "minus one"), put(3, [[W1, B1, flag]]))
    for number in (-1, 4096, 2**32):
        name = str(number).replace("-1", "minus one")
        yield of("R6", f"matrix in tensor {name}", put(3, [[number, B1, 1]]))
        yield of("R6", f"biases in tensor {name}", put(3, [[W1, number, 1]]))


def _head() -> Iterator[Case]:
    yield of("R7", "a head that is null", put(2, None))
    yield of("R7", "a head that is a map", put(2, {"format": 1}))
    yield of("R7", "a head of 18", lambda v: v[2].__delitem__(-1))
    yield of("R7", "a head of 20", lambda v: v[2].append(0.5))
    for name, number in {"0": 0, "2": 2, **_TYPES}.items():
        yield of("R7", f"a head of format {name}", of_head(format=number))
    yield of("R13", "a softmax of one output", of_head(outputs=1))


def _floats() -> Iterator[Case]:
    wrong = {
        "an integer": 0, "true": True, "null": None, "text": "0.5", "minus zero": -0.0, "below zero": -0.5,
        "no float32": 0.1, "past float32": 1e39, "between two subnormals": 2.0**-150,
    }  # fmt: skip
    for field in _FLOATS:
        for name, value in wrong.items():
            yield of("R8", f"{field} {name}", of_head(**{field: value}))
    for name, value in {"a bit above one": 1 + 2.0**-23, "2": 2.0, "the largest": float.fromhex("0x1.fffffep+127")}.items():
        yield of("R12", f"factor {name}", of_head(factor=value))
    for field in ("beta1", "beta2"):
        for name, value in {"one": 1.0, "2": 2.0}.items():
            yield of("R12", f"{field} {name}", of_head(**{field: value}))
    for name, value in {"zero": 0.0, "the largest subnormal": 2.0**-126 - 2.0**-149, "the least subnormal": 2.0**-149}.items():
        yield of("R12", f"epsilon {name}", of_head(epsilon=value))


def _hidden() -> Iterator[Case]:
    for name, value in {"null": None, "an integer": 7, "bytes": b"\7\4", "a map": {"7": 4}}.items():
        yield of("R9", f"hidden layers that are {name}", of_head(hidden=value), on="hidden")
    yield of("R9", "three hidden layers", of_head(hidden=[7, 4, 4]), on="hidden")
    for name, value in {"no neurons": 0, "minus one neuron": -1, "4097 neurons": 4097, **_TYPES}.items():
        for place, which in enumerate(("first", "second")):
            both: list[Any] = [7, 4]
            both[place] = value
            yield of("R9", f"the {which} hidden layer of {name}", of_head(hidden=both), on="hidden")


def _numbers() -> Iterator[Case]:
    for field, past in {"activation": 3, "loss": 4, "optimizer": 4, "schedule": 4}.items():
        for name, value in {"0": 0, str(past): past, "minus one": -1, "2 to the 63": 2**63, **_TYPES}.items():
            yield of("R10", f"{field} {name}", of_head(**{field: value}))


def _ranges() -> Iterator[Case]:
    past = {"features": 65537, "outputs": 4097, "steps": 2**32, "batch": 4097, "every": 2**32}
    for field, above in past.items():
        for name, value in {"0": 0, "minus one": -1, str(above): above, **_TYPES}.items():
            yield of("R11", f"{field} {name}", of_head(**{field: value}), on="mse")  # outputs of 1 and more suit it
    for name, value in {"minus one": -1, **_TYPES}.items():  # what is past 64 bits has no CBOR
        yield of("R11", f"seed {name}", of_head(seed=value))


def _checkpoints() -> Iterator[Case]:
    said: Any = cbor.decode(good("checkpoints").encode())
    (every, roots), steps = said[5], good("checkpoints").head.steps

    def marks(rule: str, name: str, value: Any, error: str = "Malformed") -> Case:
        return of(rule, f"checkpoints {name}", put(5, value), error, on="checkpoints")

    for name, value in {"that are an integer": 2, "that are false": False, "that are bytes": roots, "that are a map": {"2": roots}}.items():
        yield marks("R30", name, value)
    yield marks("R30", "of one", [every])
    yield marks("R30", "of three", [every, roots, 0])
    for name, value in _TYPES.items():
        yield marks("R30", f"each {name}", [value, roots])
    for name, value in {"text": "a" * 96, "null": None, "an array": [roots[:32]] * 3}.items():
        yield marks("R30", f"whose roots are {name}", [every, value])

    def many(v: Any) -> None:
        v[2][3], v[5] = 1026, [1, bytes(32 * 1025)]

    yield of("R31", "1025 checkpoints", many, "TooLarge", on="checkpoints")
    yield marks("R31", "of 32769 bytes", [every, bytes(32769)], "TooLarge")
    for name, value in {"minus one": -1, "no": 0, "all": steps, "more than all": steps + 1}.items():
        yield marks("R32", f"each {name} steps", [value, b"" if value >= steps else roots])
    whole = {"one too few": roots[:-32], "one too many": roots + bytes(32), "a byte too few": roots[:-1], "a byte too many": roots + b"\0",
             "none": b""}  # fmt: skip
    for name, value in whole.items():
        yield marks("R33", f"of which there are {name}", [every, value])
    yield marks("R33", "as many as the last step would need", [steps - 1, bytes(64)])
