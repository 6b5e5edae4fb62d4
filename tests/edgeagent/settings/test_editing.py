"""A model comes into a settings file, or goes from it, and no other line of it changes."""

from __future__ import annotations

import pytest

from edgeagent.settings import template
from edgeagent.settings.editing import with_model, without_model
from edgeagent.settings.reading import parse
from modelwire.errors import ConfigError

WRITTEN = template.render({"device.name": "pi-7", "device.fleet": "home"}, ["a", "b.x"], {"a": (0.001, "adam")})
BY_HAND = """\
# mine
[device]
name = "pi-7"   # the one at the door
fleet = "home"

[[model]]
# about a
name = "a"
[model.train]
epochs = 3
note = "#"

# about b
[[model]]
name = 'b.x'
train = { learning_rate = 0.5 }
  # indented
# of the link
[link]
window = 2"""
BY_NAME = """\
[device]
name = "pi-7"
[model.a.train]
epochs = 3
[ model . "b.x" ]
[model."b.x".update]
density = 0.5
[link]
window = 2
"""
TEXTS = [WRITTEN, WRITTEN.replace("\n", "\r\n"), BY_HAND, BY_HAND + "\n", BY_HAND + "\n\n", BY_NAME]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["c", "c.d_e-f", "train", "model", "1"])
def test_a_model_is_added_at_the_end_and_all_before_it_stays_to_the_byte(text: str, name: str) -> None:
    after = with_model(text, name, (0.02, "momentum"))
    assert after.startswith(text) and after.endswith("\r\n" if "\r\n" in text else "\n")
    before, now = parse(text), parse(after)
    models = now.pop("model")
    found = {m.pop("name"): m for m in models} if isinstance(models, list) else models
    assert list(found) == ["a", "b.x", name] and found[name] == {"train": {"learning_rate": 0.02}}
    del before["model"]
    assert now == before
    assert without_model(after, name).rstrip() == text.rstrip(), "and goes as it came"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("name", "stays"), [("a", "b.x"), ("b.x", "a")])
def test_a_model_goes_with_its_tables_and_every_other_line_stays(text: str, name: str, stays: str) -> None:
    after = without_model(text, name)
    models = parse(after)["model"]
    assert ([m["name"] for m in models] if isinstance(models, list) else list(models)) == [stays]
    rest = iter(text.split("\n"))
    assert all(line in rest for line in after.split("\n") if line.strip()), "lines only went; none moved, none changed"
    for comment in ("# mine", "# the one at the door", "# of the link", "# about b" if name == "a" else "# about a"):
        assert (comment in text) == (comment in after)


@pytest.mark.parametrize(
    "text",
    [
        'model = [{ name = "a" }, { name = "b" }]\n[device]\nname = "pi-7"\n',
        'device = { name = "pi-7" }\nmodel = { a = {}, b = {} }\n',
        '[[model]]\nname = "a"\n[[model]]\nname = "b"\n[device]\nnote = """\n[[model]]\nname = "c"\n"""\n',
        '[[model]]\nname = "a"\nlist = [\n[1],\n["x"]\n]\nafter = 1\n[[model]]\nname = "b"\n',
    ],
)
def test_what_can_t_be_changed_alone_is_left_to_its_owner(text: str) -> None:
    for change in (lambda: with_model(text, "c", None), lambda: without_model(text, "a")):
        try:
            after = change()
        except ConfigError as e:
            assert "more than the model" in e.message
        else:
            said = {**parse(text), "model": None}
            assert {**parse(after), "model": None} == said
    with pytest.raises(ConfigError, match="more than the model"):
        without_model('model = [{ name = "a" }, { name = "b" }]\n', "a")
    with pytest.raises(ConfigError, match="more than the model"):
        with_model('model = [{ name = "a" }, { name = "b" }]\n', "c", None)
