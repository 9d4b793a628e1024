"""The web page computes what Keras computes, and reads drawings."""

import json

import numpy as np
import pytest

from keras_lenet import LeNet5, export, saving
from keras_lenet.exporting import web_page
from tests.helpers import once

pytestmark = pytest.mark.skipif(
    web_page.browser() is None, reason="needs a browser, such as chromium"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "lenet5.html"
    model = saving.load("handwritten")
    card = saving.read_preset("handwritten").card
    export(model, path, "html", metadata={"threshold": card["threshold"]})
    return path


def answers(page, script):
    """Runs a script that fills the list `found`, and returns that list."""
    title = web_page.title_after(
        page,
        f"const found = []; {script}; document.title = toHex(found);" + HEX,
    )
    return json.loads(bytes.fromhex(title))


# Text in a title would be escaped.
HEX = """
function toHex(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}
"""


@pytest.mark.parametrize("name", ["mnist", "original"])
def test_outputs_are_those_of_keras(name, digits, tmp_path):
    _, (images, labels) = digits
    path = tmp_path / "lenet5.html"
    found = export(saving.load(name), path, "html", images=images)
    assert found.difference < (2e-6 if name == "mnist" else 5e-5)
    assert found.agreement == 1
    assert (found.outputs.argmax(axis=1) == labels).mean() > 0.9
    assert path.stat().st_size < 400_000


@once
def test_the_page_needs_nothing_else(page):
    text = page.read_text()
    assert "src=" not in text and "@import" not in text
    assert "http" not in text.replace("https://doi.org", "")


@once
def test_the_page_names_the_classes(tmp_path):
    script = "</script><script>document.title = 'harmed'</script>"
    names = ["<b>", script, "@weights@", "ä"]
    path = tmp_path / "lenet5.html"
    export(LeNet5(4, class_names=names), path, "html")
    assert "ä" in path.read_text("utf-8")
    script = """
      for (const row of find("bars").children)
        found.push(row.firstChild.textContent);
    """
    assert answers(path, script) == names


@once
def test_drawn_digits_are_read(page):
    script = """
      for (const button of find("examples").children) {
        button.click();
        found.push(find("text").textContent);
      }
    """
    texts = answers(page, script)
    assert [text.split(",")[0] for text in texts] == list("0123456789")
    assert all("not sure" not in text for text in texts)


@once
def test_the_address_chooses_an_example(page):
    script = """
      for (const hash of ["#7", "#nothing", "#2"]) {
        history.replaceState(null, "", hash);
        dispatchEvent(new HashChangeEvent("hashchange"));
        found.push(find("text").textContent.split(",")[0]);
      }
    """
    assert answers(page, script) == ["7", "7", "2"]


@once
@pytest.mark.parametrize("size", [0.25, 1.2])
@pytest.mark.parametrize("shift", [0, 30])
def test_the_size_and_place_of_a_drawing_do_not_matter(size, shift, page):
    script = f"""
      for (const strokes of examples) {{
        state.strokes = strokes.map((stroke) => stroke.map(
          ([x, y]) => [{size} * x + {shift}, {size} * y + {shift}]));
        update();
        found.push(find("text").textContent.split(",")[0]);
      }}
    """
    assert answers(page, script) == list("0123456789")


@once
def test_shapes_are_not_taken_for_digits(page):
    script = """
      const shapes = [
        [[[60, 60], [220, 60], [220, 220], [60, 220], [60, 60]]],
        [[[60, 60], [220, 220]], [[220, 60], [60, 220]]],
        [[[140, 140]]],
        [[[40, 140], [80, 90], [120, 190], [160, 90], [200, 190], [240, 140]]],
        [[[140, 40], [190, 220], [50, 100], [230, 100], [90, 220], [140, 40]]],
      ];
      for (const strokes of shapes) {
        state.strokes = strokes;
        update();
        found.push(find("text").textContent);
      }
      clear();
      found.push(find("text").textContent);
    """
    *texts, blank = answers(page, script)
    assert all(text.startswith("Not a digit") for text in texts)
    assert blank == "No ink yet"


@once
def test_a_digit_can_be_drawn_with_the_keyboard(page):
    script = """
      const press = (key, count = 1) => {
        for (let i = 0; i < count; i++)
          pad.dispatchEvent(new KeyboardEvent("keydown", {key}));
      };
      press("ArrowUp", 8);
      press(" ");
      press("ArrowDown", 16);
      found.push(find("text").textContent);
      press("Delete");
      found.push(find("text").textContent);
    """
    drawn, cleared = answers(page, script)
    assert drawn.startswith("1, ")
    assert cleared == "No ink yet"


@once
def test_a_picture_is_read(page, digits):
    _, (images, labels) = digits
    pictures = (255 - images[:10]).reshape(10, -1).tolist()
    script = f"""
      const all = {json.dumps(pictures)};
      for (const grey of all) {{
        const data = grey.flatMap((value) => [value, value, value, 255]);
        show(fromPicture({{data, width: 28, height: 28}}));
        found.push(find("text").textContent.split(",")[0]);
      }}
    """
    texts = answers(page, script)
    assert np.mean(np.array(texts) == labels[:10].astype(str)) >= 0.9


def test_colour_images_are_rejected(tmp_path):
    model = LeNet5(input_shape=(28, 28, 3))
    with pytest.raises(ValueError, match="must take grey images"):
        export(model, tmp_path / "lenet5.html", "html")
