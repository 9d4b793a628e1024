import re

import keras

from keras_lenet import HeldOutEvaluation
from tests.callbacks.helpers import make_model, train
from tests.helpers import in_order_of_keras


def test_verbose_prints_a_line_at_every_evaluation(data, capsys):
    train(data, [HeldOutEvaluation(data, 8)])
    assert capsys.readouterr().out == ""
    held_out = HeldOutEvaluation(data, 8, verbose=1)
    train(data, [held_out])
    first, _ = capsys.readouterr().out.splitlines()
    names = in_order_of_keras(["loss", "accuracy", "val_loss", "val_accuracy"])
    values = {name: held_out.history[name][0] for name in names}
    assert first == "step 8: " + ", ".join(
        f"{name} {value:.4f}" for name, value in values.items()
    )


class Screen:
    """A terminal with few rows that keeps the lines scrolled off it."""

    def __init__(self, rows=6, columns=130):
        self.rows, self.columns = rows, columns
        self.row = self.column = 0
        self.lines = [""]

    def isatty(self):
        return True

    def flush(self):
        pass

    def write(self, text):
        for part in re.findall(r"\x1b\[\d*[A-Za-z]|.", text, re.DOTALL):
            getattr(self, f"_{NAMES.get(part[-1:], 'put')}")(part)

    @property
    def _top(self):
        return max(0, len(self.lines) - self.rows)

    def _feed(self, part):
        self.row += 1
        self.column = 0
        if self.row == len(self.lines):
            self.lines.append("")

    def _up_or_letter(self, part):
        if len(part) == 1:
            return self._put(part)
        self.row = max(self._top, self.row - 1)

    def _insert_or_letter(self, part):
        if len(part) == 1:
            return self._put(part)
        # The terminal drops the line that moves below its last row.
        full = len(self.lines) - self._top == self.rows
        self.lines.insert(self.row, "")
        if full:
            self.lines.pop()

    def _color_or_letter(self, part):
        if len(part) == 1:
            self._put(part)

    def _return(self, part):
        self.column = 0

    def _back(self, part):
        self.column = max(0, self.column - 1)

    def _put(self, part):
        if self.column == self.columns:
            self._feed(part)
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = (
            line[: self.column] + part + line[self.column + 1 :]
        )
        self.column += 1


NAMES = {
    "\n": "feed",
    "\r": "return",
    "\b": "back",
    "A": "up_or_letter",
    "L": "insert_or_letter",
    "m": "color_or_letter",
}


def test_lines_are_printed_above_the_progress_bar(data, monkeypatch):
    screen = Screen()
    bars = []

    class RecordsBar(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch > 4:
                bars.append([line for line in screen.lines if line][-1])

    held_out = HeldOutEvaluation(data, 4, verbose=1)
    model = make_model()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", screen)
        model.fit(
            *data, batch_size=16, epochs=2, callbacks=[held_out, RecordsBar()]
        )
    lines = [line.split(":")[0].strip() for line in screen.lines]
    bar = re.compile(r"8/8 ━+ \d+s \S+/step - accuracy")
    assert [line for line in lines if not bar.match(line)] == [
        "Epoch 1/2",
        "step 4",
        "step 8",
        "Epoch 2/2",
        "step 12",
        "step 16",
        "",
    ]
    printed = [line for line in screen.lines if line.startswith("step ")]
    assert all("val_accuracy" in line for line in printed)
    assert bars and all(re.match(r" ?\d/8 ━", bar) for bar in bars)


def test_a_line_overwrites_the_progress_bar_in_a_notebook(data, capsys):
    held_out = HeldOutEvaluation(data, 4, verbose=1)
    make_model().fit(*data, batch_size=16, callbacks=[held_out])
    printed = capsys.readouterr().out
    before, after = printed.split("step 4: ")
    assert before[-1] == "\r"
    drawn = before[:-1].rpartition("\r")[2]
    assert len(drawn) > 80
    assert len(after.partition("\n")[0]) > len(drawn)
