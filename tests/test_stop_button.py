"""The stop button, with real kernels: one sentence, what was learned is kept, and Run All ends there."""

import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

from helpers.stop_button import INTERRUPTED, WAITING
from tests.nbval_numbers import kernel_environment
from tests.notebooks import ROOT, code_cells, read

GOES_ON = "This cell goes on training what it has trained before"
SETUP = """
import time
import torch
from helpers import interruptible

def made():
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)

def train(model, optimizer, updates, pause=0.0):
    losses = []
    with interruptible():
        for update in range(updates):
            optimizer.zero_grad()
            loss = model(torch.ones(1, 2)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if update == 0:
                print("begun")
            time.sleep(pause)
    return losses

model, optimizer = made()
"""


class Kernel:
    """A kernel to which cells are sent as Run All sends them; what they write is kept by cell."""

    def __init__(self):
        with kernel_environment():
            self.manager, self.client = start_new_kernel(kernel_name="python3", cwd=str(ROOT / "notebooks"))
        self.written, self.errors, self.idle, self.redrawn = {}, {}, set(), []

    def send(self, *cells):
        return [self.client.execute(cell) for cell in cells]

    def _hear(self, seconds):
        message = self.client.get_iopub_msg(timeout=seconds)
        cell, content = message["parent_header"].get("msg_id"), message["content"]
        if message["msg_type"] == "stream":
            self.written[cell] = self.written.get(cell, "") + content["text"]
        elif message["msg_type"] == "error":
            self.errors[cell] = f"{content['ename']}: {content['evalue']}"
        elif message["msg_type"] == "update_display_data":
            self.redrawn.append(content["data"])
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            self.idle.add(cell)

    def hear_until(self, heard, seconds=120):
        end = time.monotonic() + seconds
        while not heard():
            self._hear(max(end - time.monotonic(), 0.01))

    def finish(self, *cells, seconds=300):
        """Hear all that cells have to say; returns how each ended."""
        self.hear_until(lambda: set(cells) <= self.idle, seconds)
        replies = {}
        while not set(cells) <= set(replies):
            reply = self.client.get_shell_msg(timeout=30)
            replies[reply["parent_header"]["msg_id"]] = reply["content"]["status"]
        return [replies[cell] for cell in cells]

    def run(self, *cells):
        """Run cells that must not fail; returns what the last one wrote."""
        sent = self.send(*cells)
        assert set(self.finish(*sent)) == {"ok"}, [self.errors.get(cell) for cell in sent]
        return self.written.get(sent[-1], "")

    def stop_in(self, cell, begun):
        """Press the stop button once `begun(what the cell has written)`."""
        self.hear_until(lambda: begun(self.written.get(cell, "")))
        self.manager.interrupt_kernel()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(name="kernel")
def running_kernel():
    kernel = Kernel()
    yield kernel
    kernel.close()


def test_the_stop_button(kernel):
    kernel.run(SETUP)

    # in a training: results are kept, the cell goes on to its end, and no cell after it runs
    training, after = kernel.send("losses = train(model, optimizer, 10_000, 0.01)\nprint('kept')", "print('after')")
    kernel.stop_in(training, lambda text: "begun" in text)
    assert kernel.finish(training, after) == ["error", "aborted"]
    assert kernel.written[training] == f"begun\n{INTERRUPTED} {WAITING}\nkept\n"
    assert kernel.errors == {} and after not in kernel.written
    assert kernel.run("print(0 < len(losses) < 10_000, model(torch.ones(1, 2)).shape)") == "True torch.Size([1, 1])\n"

    # the same cell again goes on training, and says so, once
    said = kernel.run("losses = train(model, optimizer, 3)")
    assert GOES_ON not in said  # this is another cell
    again = "losses = train(model, optimizer, 3)"
    said = kernel.run(again)
    assert said.count(GOES_ON) == 1
    assert "updates so far). To begin anew, first run the cell that makes the model." in said
    anew = "model, optimizer = made()\nlosses = train(model, optimizer, 3)\nlosses = train(model, optimizer, 3)"
    assert kernel.run(anew, anew) == "begun\nbegun\n"

    # anywhere else: a sentence with the line, no traceback, and Run All ends
    loop, after = kernel.send("print('begun')\nwhile True:\n    time.sleep(0.01)", "print('after')")
    kernel.stop_in(loop, lambda text: "begun" in text)
    assert kernel.finish(loop, after) == ["error", "aborted"]
    assert kernel.written[loop].startswith("begun\nStopped in line ") and kernel.written[loop].count("\n") == 2
    assert WAITING in kernel.written[loop] and kernel.errors == {}

    # other errors are shown as ever, and the kernel is as good as new
    (wrong,) = kernel.send("1 / 0")
    assert kernel.finish(wrong) == ["error"] and kernel.errors[wrong].startswith("ZeroDivisionError")
    assert kernel.run("print('well')") == "well\n"


BARS = """
import os, ipywidgets
os.environ["TQDM_DISABLE"] = "0"
from helpers.files import progress_bar

def steps():
    with progress_bar(total=10, leave=False) as bar:
        for step in range(10):
            bar.update()
            yield step

def left():
    widgets = ipywidgets.widgets.widget._instances.values()
    bars = [widget for widget in widgets if isinstance(widget, ipywidgets.FloatProgress)]
    return len(bars), [bar.bar_style for bar in bars if bar.bar_style]

for step in steps():
    pass
for step in steps():
    if step == 3:
        break
print(left())
"""


def test_a_progress_bar_leaves_nothing_behind(kernel):
    """Not even in red, where a loop was left before its end."""
    assert kernel.run(BARS) == "(2, [])\n"
    assert kernel.redrawn == [{"text/plain": ""}] * 2


def test_without_a_kernel(capsys):
    from helpers import interruptible

    with interruptible():
        raise KeyboardInterrupt
    assert capsys.readouterr().out == f"{INTERRUPTED}\n"


# A notebook, how the cell begins that is stopped, and the last cell that is run after it: a plot, or the model's use.
TRAININGS = {
    "ch05_pretraining": ("train_losses, val_losses, tokens_seen = train_model_simple(", "figures.perplexity_curves("),
    "ch06_classification": ("val_accs, _ = train_classifier_simple(", "we go on with the weights after"),
    "ch07_instructions": ("for progress in training_steps(*run", "figures.learning(seen"),
    "appendix_d_training_loop": ("train_losses, val_losses, tokens_seen, lrs = train_model(", "figures.training_run("),
    "appendix_e_lora": ("lora_curves = fine_tune(model", "figures.loss_curves("),
    "bonus/dpo_preference_tuning": ("losses = fine_tune(model, written", "answer_entries("),
}
SILENT = ("bonus/dpo_preference_tuning",)  # whose trainings report nothing before they end


@pytest.mark.whole
@pytest.mark.parametrize("name", TRAININGS, ids=lambda name: Path(name).name)
def test_a_training_of_the_course(kernel, name):
    """Stopped after a moment: one sentence, no traceback, what follows runs; run again, the cell goes on."""
    stopped, last = TRAININGS[name]
    cells = [cell.source for cell in code_cells(read(ROOT / "notebooks" / f"{name}.ipynb"))]
    place = next(number for number, cell in enumerate(cells) if stopped in cell)
    end = next(number for number, cell in enumerate(cells) if number > place and last in cell)
    for cell in cells[:place]:
        sent = kernel.send(cell)
        kernel.finish(*sent)
    kernel.errors.clear()  # some errors are the lesson
    training, after = kernel.send(cells[place], "print('after')")
    if name in SILENT:
        time.sleep(3)
        kernel.manager.interrupt_kernel()
    else:
        kernel.stop_in(training, lambda text: text)  # at the first report
    assert kernel.finish(training, after) == ["error", "aborted"]
    said = kernel.written[training]
    assert said.count(INTERRUPTED) + said.count("Stopped in line") == 1 and said.count(WAITING) == 1
    assert kernel.errors == {} and after not in kernel.written
    for cell in cells[place + 1 : end + 1]:
        kernel.run(cell)
    if "model = " not in cells[place] and "model, " not in cells[place].split("=")[0]:
        (again,) = kernel.send(cells[place])
        kernel.hear_until(lambda: GOES_ON in kernel.written.get(again, ""))
        kernel.manager.interrupt_kernel()
        assert kernel.finish(again) == ["error"]
