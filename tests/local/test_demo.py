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
def test_demo_of_another_recipe_counts_as_untrained(
    tmp_path: Path, content: bytes, made: bool
) -> None:
    """The recipe's file is compared as bytes: it may hold anything."""
    checkpoint_of(tmp_path).mkdir()
    (checkpoint_of(tmp_path) / RECIPE_FILE).write_bytes(content)

    assert is_trained(tmp_path) is made


def test_training_uses_one_thread_and_restores_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With several threads the training takes minutes on a busy machine."""
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
