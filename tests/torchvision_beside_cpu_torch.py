"""Make an installed torchvision import beside a CPU torch, which its compiled half does not fit.

    python -m tests.torchvision_beside_cpu_torch SITE_FOLDER

No CPU build of torchvision exists for every machine. Its Python parts, all that transformers and
timm use, import once its compiled operators are declared; nobody here calls one.
"""

import re
import sys
from pathlib import Path
from typing import Final

_NAMES: Final = re.compile(
    r"torch\.ops\.torchvision\.(\w+)|register_meta\(\"(\w+)\"|\"torchvision::(\w+)\""
)
_DECLARATION: Final = """

# Appended by tests/torchvision_beside_cpu_torch.py.
if not _has_ops():
    for _name in {names!r}:
        torch.library.define(f"torchvision::{{_name}}", "(Tensor x) -> Tensor")
"""


def declare_operators(site: Path) -> None:
    """Append the declarations to the module that torchvision loads its compiled half in."""
    package = site / "torchvision"
    found = _NAMES.findall((package / "_meta_registrations.py").read_text())
    names = sorted({name for groups in found for name in groups if name})
    with (package / "extension.py").open("a") as extension:
        extension.write(_DECLARATION.format(names=names))


if __name__ == "__main__":
    declare_operators(Path(sys.argv[1]))
