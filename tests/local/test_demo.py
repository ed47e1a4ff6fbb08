"""The demo model's training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from deploy.local import demo
from deploy.local.demo_folder import RECIPE_FILE, checkpoint_of, is_trained, recipe
from deploy.local.digits import load_split


@pytest.mark.parametrize(
    ("content", "made"), [(recipe().encode(), True), (b"", False), (b"\xff\xfe", False)]
)
def test_demo_is_made_where_its_recipe_is_this_one(
    tmp_path: Path, content: bytes, made: bool
) -> None:
    """The file may hold any bytes."""
    checkpoint_of(tmp_path).mkdir()
    (checkpoint_of(tmp_path) / RECIPE_FILE).write_bytes(content)

    assert is_trained(tmp_path) is made


def test_training_takes_one_processor_and_gives_the_others_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads that wait for each other train for minutes beside other work."""
    training, held_out = load_split()
    monkeypatch.setattr(demo, "_EPOCHS", 1)
    before = torch.get_num_threads()
    threads: set[int] = set()

    def note(module: torch.nn.Module, *_: Any) -> None:
        if module.training:
            threads.add(torch.get_num_threads())

    hook = register_module_forward_hook(note)
    torch.set_num_threads(2)
    try:
        demo._train(training[:64], held_out[:10])
        after = torch.get_num_threads()
    finally:
        hook.remove()
        torch.set_num_threads(before)

    assert (threads, after) == ({1}, 2)
