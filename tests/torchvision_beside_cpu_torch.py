"""Make an installed torchvision importable with a CPU torch, which its compiled part does not fit.

    python -m tests.torchvision_beside_cpu_torch SITE_FOLDER

CPU builds of torchvision do not exist for every machine. transformers and timm use only its Python
parts, which can be imported once the compiled operators are declared. No test calls an operator.
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
        torch.library.define("torchvision::" + _name, "(Tensor x) -> Tensor")
"""


def declare_operators(site: Path) -> None:
    """Append the declarations to the module in which torchvision loads its compiled part."""
    package = site / "torchvision"
    found = _NAMES.findall((package / "_meta_registrations.py").read_text())
    names = sorted({name for groups in found for name in groups if name})
    with (package / "extension.py").open("a") as extension:
        extension.write(_DECLARATION.format(names=names))


if __name__ == "__main__":
    declare_operators(Path(sys.argv[1]))
