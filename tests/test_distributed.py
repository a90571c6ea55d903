"""Several processes: the gradients and losses of one, resuming, deaths, ports.

What two processes compute is computed by tests/distributed_worker.py, once.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

import helpers.apps.launch
from helpers import GPTModel, calc_loss_batch, gpt_config, learning_rate_at, load_checkpoint, save_checkpoint
from helpers.apps import train_distributed
from helpers.apps.corpus import TokenWindows
from helpers.apps.distributed import join_processes, make_loaders
from helpers.apps.launch import environment, free_port, is_taken, launch
from tests.distributed_worker import VOCABULARY, small_ids, stop_after, tiny_gpt, tiny_train
from tests.tiny import CPU, tiny_model

WORKER = Path(__file__).parent / "distributed_worker.py"
KILLED = "--set emb_dim=16 n_heads=2 n_layers=1 context_length=16 drop_rate=0.1 --batch-size 4 --epochs 2"
WINDOWS = TokenWindows(small_ids(), 16)


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DEVICE", "cpu")
        patch.setenv("COURSE_PROFILE", "quick")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def alone(monkeypatch):
    """A group of one process, as the program makes it when it is started plainly."""
    monkeypatch.setattr(train_distributed, "token_ids", small_ids)
    yield join_processes()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def killed_options(tmp_path_factory):
    """A run with the real vocabulary on a folder of texts: 20 updates, a checkpoint after every second."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "texts").mkdir()
    words = (Path(helpers.__file__).parent / "assets" / "story.txt").read_text(encoding="utf-8")[:3200].split(" ")
    (folder / "texts" / "a.txt").write_text(" ".join(words[:200]), encoding="utf-8")
    (folder / "texts" / "b.txt").write_text(" ".join(words[200:]), encoding="utf-8")
    return [*KILLED.split(), "--text", str(folder / "texts")]


@pytest.fixture(scope="module")
def two(tmp_path_factory, killed_options):
    """What two processes computed, what they printed, and the folder with their checkpoints."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "killed_options.txt").write_text("\n".join(killed_options), encoding="utf-8")
    run = launch(WORKER, 2, folder, timeout=500)
    assert run.returncode == 0, run.stderr
    return torch.load(folder / "results.pt", weights_only=True), run, folder


def order(epoch, seed=123):
    """The training windows of the tiny runs in the order of an epoch, in batches of 8; the last 2 are held out."""
    generator = torch.Generator().manual_seed(seed + epoch)
    return torch.randperm(8 * 22, generator=generator).view(22, 8)


def batch(indices):
    inputs, targets = zip(*(WINDOWS[int(i)] for i in indices), strict=True)
    return torch.stack(inputs), torch.stack(targets)


class TestWindows:
    def test_no_batch_is_held_out_from_too_few(self, alone):
        for count, train, held_out in ((16, 1, 1), (17, 1, 1), (160, 18, 2), (191, 21, 2)):
            loaders = make_loaders(torch.utils.data.TensorDataset(torch.arange(count)), 8, 2, seed=0)
            assert [len(loader) for loader in loaders] == [2 * train, 2 * held_out]
        with pytest.raises(ValueError, match="the text gives 15 windows; batch_size=8 needs at least 16"):
            make_loaders(torch.utils.data.TensorDataset(torch.arange(15)), 8, 2, seed=0)

    def test_what_is_held_out_is_the_end_and_in_order(self, alone):
        _, held_out = make_loaders(torch.utils.data.TensorDataset(torch.arange(200)), 10, 1, seed=0)
        assert [row for (rows,) in held_out for row in rows.tolist()] == list(range(180, 200))


def tiny_config():
    return gpt_config(vocab_size=VOCABULARY, context_length=16, emb_dim=32, n_heads=2, n_layers=2, drop_rate=0.0)


def slowly(epochs=1, lr=3e-3):
    """The losses of a plain loop, written out."""
    torch.manual_seed(123)
    model, losses = GPTModel(tiny_config()), []
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    batches = [rows for epoch in range(epochs) for rows in order(epoch)]
    for step, rows in enumerate(batches):
        loss = calc_loss_batch(*batch(rows), model, CPU)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, len(batches), len(batches) // 10, lr, lr / 10, lr / 10)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def expected():
    return slowly()


class TestTwoProcesses:
    """Everything that needs the results of two processes, in one class, so that pytest-xdist starts them once."""

    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_together_the_processes_see_one_batch(self, two, accumulate):
        seen, _ = two[0][f"windows {accumulate}"]
        expected = [sorted(batch(rows)[0].tolist()) for epoch in (0, 1) for rows in order(epoch)]
        assert seen == expected

    @pytest.mark.parametrize("kind", ["ddp gradients 1", "ddp gradients 2", "fsdp gradients 2"])
    def test_two_halves_give_the_gradients_of_the_whole_batch(self, two, kind):
        gradients, _ = two[0][kind]
        model = tiny_gpt()  # as chapter 4 has it, without any of the engine
        calc_loss_batch(*batch(order(0)[0]), model, CPU).backward()
        expected = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert gradients.keys() == expected.keys()
        for name in expected:
            assert_close(gradients[name], expected[name], rtol=1e-5, atol=1e-6)
        assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-2

    def test_gradients_are_exchanged_once_an_update(self, two):
        once = two[0]["ddp gradients 1"][1]
        assert once == [1]  # one bucket holds this small model
        assert two[0]["ddp gradients 2"][1] == [0, 1]
        assert two[0]["fsdp gradients 2"][1] == [0, 1]

    @pytest.mark.parametrize("kind", ["ddp", "ddp accumulating", "fsdp"])
    def test_losses(self, two, alone, expected, kind):
        ours = two[0][kind]
        assert len(ours) == 22 and ours[-1] < ours[0] - 0.2
        assert ours == pytest.approx(tiny_train(alone), abs=1e-5)
        assert ours == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("kind", ["ddp dropping", "fsdp"])
    def test_resuming_bit_for_bit(self, two, kind):
        assert two[0][f"{kind} resumed"] == two[0][kind]
        assert len(set(two[0][kind])) == 22

    @pytest.mark.parametrize("name", ["fsdp resumed by ddp", "ddp resumed by fsdp"])
    def test_resuming_with_the_other_way_to_share(self, two, expected, name):
        assert two[0][name] == pytest.approx(expected, abs=1e-5)

    def test_each_process_drops_something_else_in_each_update(self, two):
        seeds = two[0]["seeds"]
        assert [len(of_one) for of_one in seeds] == [1 + 22, 1 + 22]  # the first one is for the weights
        assert seeds[0][0] == seeds[1][0] == 123
        assert len({seed for of_one in seeds for seed in of_one}) == 1 + 2 * 22

    def test_the_file_is_that_of_a_plain_model(self, two):
        models = []
        for kind in ("ddp", "fsdp"):
            model = GPTModel(tiny_config())
            optimizer = torch.optim.AdamW(model.parameters())
            progress, extra = load_checkpoint(two[2] / f"{kind}.pt", model, optimizer)
            assert (progress.epoch, progress.batch, progress.step, progress.tokens_seen) == (1, 0, 22, 22 * 8 * 16)
            assert extra["losses"] == two[0][kind]
            assert extra["run"]["emb_dim"] == 32
            models.append([*model.state_dict().values(), *(s["exp_avg"] for s in optimizer.state.values())])
        assert len(models[0]) == len(models[1])
        for one, other in zip(*models, strict=True):
            assert_close(one, other, rtol=1e-3, atol=1e-4)

    def test_only_the_first_process_speaks(self, two):
        first, second = two[0]["said"]
        assert second == two[1].stderr == ""
        lines = first.splitlines()
        assert "2 processes on cpu, 32,000 parameters, 22 updates" in lines
        assert all(line.startswith(("2 processes on cpu, ", "update ", "going on from ")) for line in lines)

    @pytest.mark.skipif(os.name == "nt", reason="kills a process by a signal")
    def test_a_death_ends_the_run_and_the_checkpoint_goes_on(self, two, killed_options, tmp_path):
        checkpoint = tmp_path / "run.pt"
        words = [*killed_options, "--checkpoint", checkpoint, "--save-every", 2]
        run = launch(WORKER, 2, "dying", *words, timeout=300)
        assert run.returncode != 0
        message = "process 0 ends, because another process of the run has ended; the same command goes on from"
        assert f"{message} {checkpoint}" in run.stderr
        assert "Signal 9 (SIGKILL) received by PID" in run.stderr and "update 20" not in run.stdout

        again = launch("helpers.apps.train_distributed", 2, *words, timeout=300)
        assert again.returncode == 0, again.stderr
        assert again.stdout.splitlines()[1] == f"going on from {checkpoint} after update 4"
        losses = torch.load(checkpoint, weights_only=True)["extra"]["losses"]
        assert losses == two[0]["not killed"] and len(losses) >= 20


class TestLosses:
    @pytest.mark.parametrize("accumulate", [1, 2, 8])
    def test_of_one_process(self, alone, expected, accumulate):
        assert tiny_train(alone, "--accumulate", accumulate) == pytest.approx(expected, abs=1e-5)

    def test_two_epochs_have_two_orders(self, alone):
        assert tiny_train(alone, "--epochs", 2) == pytest.approx(slowly(epochs=2), abs=1e-5)

    def test_in_bfloat16(self, alone, expected, monkeypatch):
        monkeypatch.setattr(train_distributed, "bfloat16_is_native", lambda device: True)  # slow elsewhere, but works
        losses = tiny_train(alone, "--bf16")
        assert losses == pytest.approx(expected, abs=0.05)
        assert losses != pytest.approx(expected, abs=1e-5)

    def test_bfloat16_where_it_is_not_native(self, alone, monkeypatch):
        monkeypatch.setattr(train_distributed, "bfloat16_is_native", lambda device: False)
        with pytest.raises(ValueError, match="--bf16: this cpu does not compute in bfloat16 itself"):
            tiny_train(alone, "--bf16")


class TestResuming:
    def test_at_several_places_of_a_plain_run(self, alone, tmp_path):
        expected = tiny_train(alone, "--epochs", 2, "--accumulate", 2, drop=0.2)
        for updates in (5, 22):  # in the middle of an epoch and at its end
            words = ("--epochs", 2, "--accumulate", 2)
            stop_after(updates, alone, tmp_path / f"{updates}.pt", *words, drop=0.2)
            assert load_checkpoint(tmp_path / f"{updates}.pt", GPTModel(tiny_config()))[0].step == updates
            assert tiny_train(alone, *words, "--checkpoint", tmp_path / f"{updates}.pt", drop=0.2) == expected

    def test_a_finished_run_is_left_alone(self, alone, tmp_path, capsys):
        words = ("--checkpoint", tmp_path / "run.pt")
        losses = tiny_train(alone, *words)
        before = (tmp_path / "run.pt").stat().st_mtime_ns
        capsys.readouterr()
        assert tiny_train(alone, *words) == losses
        assert (tmp_path / "run.pt").stat().st_mtime_ns == before
        assert "going on from" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "drop", "message"),
        [
            (["--batch-size", 4], 0.0, "is of a run with batch_size=8, not 4"),
            (["--seed", 1], 0.0, "is of a run with seed=123, not 1"),
            ([], 0.3, "is of a run with drop_rate=0.0, not 0.3"),
        ],
    )
    def test_the_checkpoint_of_another_run(self, alone, tmp_path, words, drop, message):
        tiny_train(alone, "--checkpoint", tmp_path / "run.pt")
        with pytest.raises(ValueError, match=message):
            tiny_train(alone, "--checkpoint", tmp_path / "run.pt", *words, drop=drop)

    def test_the_checkpoint_of_another_text(self, alone, tmp_path, monkeypatch):
        tiny_train(alone, "--checkpoint", tmp_path / "run.pt")
        backwards = small_ids()[::-1]
        monkeypatch.setattr(sys.modules["tests.distributed_worker"], "small_ids", lambda _: backwards)
        with pytest.raises(ValueError, match=r"is of a run with text=3073 tokens, crc32 .*, not 3073 tokens, crc32"):
            tiny_train(alone, "--checkpoint", tmp_path / "run.pt")

    def test_a_checkpoint_of_something_else(self, alone, tmp_path):
        model = GPTModel(tiny_config())
        save_checkpoint(tmp_path / "ours.pt", model, torch.optim.AdamW(model.parameters()))
        with pytest.raises(ValueError, match=r"ours.pt was not written by helpers.apps.train_distributed"):
            tiny_train(alone, "--checkpoint", tmp_path / "ours.pt")
        other = tiny_model()
        save_checkpoint(tmp_path / "other.pt", other, torch.optim.AdamW(other.parameters()))
        with pytest.raises(ValueError, match="the file belongs to a model of another size"):
            tiny_train(alone, "--checkpoint", tmp_path / "other.pt")


# What torchrun does with one process: it ends it when it is itself asked to end.
TORCHRUN = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=subprocess.DEVNULL)

def end(*_):
    child.kill()
    child.wait()
    sys.exit(1)

signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] else end)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def taken_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


class TestLaunch:
    def test_a_port_that_is_taken(self, taken_port, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["launch", "--port", str(taken_port), "2", "helpers.apps.train_distributed"])
        with pytest.raises(SystemExit) as end:
            helpers.apps.launch.main()
        sentence = f"port {taken_port} of this machine is taken; name another, or none and a free one is found"
        assert end.value.code == f"error: {sentence}"  # Python prints it and ends with status 1
        with pytest.raises(ValueError, match=sentence):
            launch("helpers.apps.train_distributed", 2, port=taken_port)

    def test_a_port_that_is_taken_at_the_last_moment(self, taken_port, tmp_path, monkeypatch):
        script = tmp_path / "say.py"
        script.write_text("import os, sys; open(sys.argv[1] + os.environ['RANK'], 'w').close()", encoding="utf-8")
        good, ports = free_port(), []

        def ports_in_turn():
            ports.append(good if ports else taken_port)
            return ports[-1]

        monkeypatch.setattr(helpers.apps.launch, "free_port", ports_in_turn)
        run = launch(script, 2, tmp_path / "a word ", timeout=300)
        assert run.returncode == 0, run.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a word 0", "a word 1", "say.py"]
        assert ports == [taken_port, good]

    def test_gives_up(self, taken_port, monkeypatch):
        calls = []

        def failing(command, *_):
            calls.append(command)
            return subprocess.CompletedProcess(command, 1)

        monkeypatch.setattr(helpers.apps.launch, "_run", failing)
        monkeypatch.setattr(helpers.apps.launch, "free_port", lambda: taken_port)
        assert launch("json", 1).returncode == 1
        assert len(calls) == 3
        monkeypatch.setattr(helpers.apps.launch, "free_port", free_port)
        assert launch("json", 1).returncode == 1  # another failure is not tried again
        assert len(calls) == 4

    def test_the_command_line(self, monkeypatch):
        calls = []

        def fine(command, variables, timeout, capture):
            calls.append((command, timeout, capture))
            return subprocess.CompletedProcess(command, 3)

        monkeypatch.setattr(helpers.apps.launch, "_run", fine)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        port = free_port()
        monkeypatch.setattr(sys, "argv", f"launch --port {port} 2 helpers.apps.train_distributed --epochs 1".split())
        with pytest.raises(SystemExit) as end:
            helpers.apps.launch.main()
        assert end.value.code == 3
        ((command, timeout, capture),) = calls
        assert command[1:] == (
            "-m torch.distributed.run --nproc-per-node 2 --master-addr 127.0.0.1 "
            f"--master-port {port} -m helpers.apps.train_distributed --epochs 1"
        ).split(" ")
        assert timeout is None and capture is False

    @pytest.mark.parametrize("deaf", [False, True])
    def test_after_the_timeout_nothing_is_left(self, tmp_path, monkeypatch, deaf):
        command = [sys.executable, "-c", TORCHRUN, str(tmp_path / "pid"), "deaf" * deaf]
        monkeypatch.setattr(helpers.apps.launch, "launch_command", lambda *_, **__: command)
        monkeypatch.setattr(helpers.apps.launch, "_PATIENCE", 1.0 if deaf else 60.0)
        with pytest.raises(subprocess.TimeoutExpired):
            launch("program", 1, timeout=3)
        torchrun, worker = map(int, (tmp_path / "pid").read_text().split())
        assert not is_alive(torchrun)
        assert deaf or not is_alive(worker)
        if deaf:
            os.kill(worker, signal.SIGKILL)

    @pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
    def test_a_signal_ends_all(self, tmp_path, sent, status):
        code = (
            "import sys, helpers.apps.launch as launch; launch.launch_command = lambda *_, **__: [sys.executable, "
            f"'-c', {TORCHRUN!r}, {str(tmp_path / 'pid')!r}, '']; sys.argv[1:] = ['1', 'program']; launch.main()"
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(helpers.__file__).parents[1])
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(sent)
        assert process.wait(timeout=60) == status
        assert not any(map(is_alive, map(int, (tmp_path / "pid").read_text().split())))

    def test_the_environment(self, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        monkeypatch.setattr(sys, "platform", "win32")
        assert environment(3)["USE_LIBUV"] == "0" and environment(3)["OMP_NUM_THREADS"] == "2"
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.delenv("USE_LIBUV", raising=False)
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        assert "USE_LIBUV" not in environment(3) and environment(3)["OMP_NUM_THREADS"] == "5"

    @pytest.mark.parametrize(
        ("arguments", "port", "error", "message"),
        [
            (("helpers.apps.train_distributed", 0), None, ValueError, "processes=0 must be at least 1"),
            (("nowhere/script.py", 2), None, FileNotFoundError, "nowhere/script.py does not exist"),
            (("json", 2), 70000, ValueError, "port=70000 must be from 1 to 65535"),
        ],
    )
    def test_bad_arguments(self, arguments, port, error, message):
        with pytest.raises(error, match=message):
            launch(*arguments, port=port)

    def test_ports(self, taken_port):
        assert is_taken(taken_port)
        assert not is_taken(free_port())


class TestTheProgram:
    def ends_with(self, *words):
        with pytest.raises(SystemExit) as end:
            train_distributed.main([str(word) for word in words])
        assert not dist.is_initialized()
        return end.value.code

    def test_plainly(self, capsys, tmp_path, killed_options):
        words = [*killed_options, "--checkpoint", tmp_path / "run.pt", "--epochs", 1, "--eval-every", 4]
        train_distributed.main([str(word) for word in words])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("1 process on cpu, ")
        assert [line.split(":")[0] for line in lines[1:3]] == ["update 4", "update 8"]
        assert (tmp_path / "run.pt").is_file() and not dist.is_initialized()

    def test_mistakes(self, tmp_path):
        (tmp_path / "empty").mkdir()
        assert self.ends_with("--text", tmp_path / "none") == f"error: {tmp_path / 'none'} is not a folder"
        assert self.ends_with("--text", tmp_path / "empty") == f"error: {tmp_path / 'empty'} holds no .txt file"
        wrong = self.ends_with("--batch-size", 4, "--accumulate", 3)
        assert wrong == "error: batch_size=4 cannot be divided by processes=1 * accumulate=3"
        assert "size='1M' is not one of 124M" in self.ends_with("--size", "1M")
        assert "'layers' is not an entry of a configuration" in self.ends_with("--set", "layers=2")
        (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
        small = ["--set", "emb_dim=16", "n_heads=2", "n_layers=1"]
        assert "bad.pt cannot be read as a checkpoint" in self.ends_with(*small, "--checkpoint", tmp_path / "bad.pt")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--epochs", "0"], "--epochs must be at least 1"),
            (["--checkpoint", "run.pt", "--save-every", "-1"], "--save-every must be at least 1"),
            (["--save-every", "5"], "--save-every is for --checkpoint, which is missing"),
            (["--tokens", "my.tokens"], "--tokens says where the tokens of --text are kept, and --text is missing"),
            (["--set", "emb_dim"], "--set emb_dim: give NAME=NUMBER"),
            (["--set", "emb_dim=wide"], "--set emb_dim=wide: give NAME=NUMBER"),
            (["--set", "vocab_size=100"], "--set vocab_size=100: GPT-2's tokens need 50257"),
        ],
    )
    def test_a_command_line_with_mistakes(self, words, message, capsys, monkeypatch):
        monkeypatch.setattr(train_distributed, "train", lambda *_: None)
        assert self.ends_with(*words) == 2
        assert message in capsys.readouterr().err

    def test_others_let_the_first_process_speak(self, monkeypatch):
        slept = []
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(time, "sleep", slept.append)
        monkeypatch.setattr(train_distributed, "join_processes", lambda: CPU)

        def fail(options, device):
            raise ValueError("a reason")

        monkeypatch.setattr(train_distributed, "train", fail)
        assert self.ends_with() == "error: a reason"
        assert slept == [3]

    @pytest.mark.parametrize("error", [dist.DistNetworkError("Broken pipe"), RuntimeError("[gloo/tcp] closed by peer")])
    def test_a_lost_connection(self, monkeypatch, tmp_path, error):
        monkeypatch.chdir(tmp_path)

        def fail(options, device):
            raise error

        monkeypatch.setattr(train_distributed, "join_processes", lambda: CPU)
        monkeypatch.setattr(train_distributed, "train", fail)
        end = "process 0 ends, because another process of the run has ended"
        assert self.ends_with("--checkpoint", "run.pt").startswith(f"{end} (")  # there is nothing to go on from
        (tmp_path / "run.pt").touch()
        assert self.ends_with("--checkpoint", "run.pt").startswith(f"{end}; the same command goes on from run.pt (")
        assert self.ends_with().startswith(f"{end} (")

    def test_control_c(self, monkeypatch, tmp_path):
        def interrupt(options, device):
            raise KeyboardInterrupt

        monkeypatch.setattr(train_distributed, "join_processes", lambda: CPU)
        monkeypatch.setattr(train_distributed, "train", interrupt)
        run = tmp_path / "run.pt"
        assert self.ends_with("--checkpoint", run) == "interrupted"
        run.touch()
        assert self.ends_with("--checkpoint", run) == f"interrupted; the same command goes on from {run}"

    def test_more_processes_than_gpus(self, monkeypatch):
        monkeypatch.setattr(sys.modules["helpers.apps.distributed"], "get_device", lambda: torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setenv("LOCAL_RANK", "2")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
        message = r"process 2 of this machine has no GPU: there are 2 \(CUDA_VISIBLE_DEVICES=4,5\)"
        with pytest.raises(ValueError, match=message):
            join_processes()
