"""A program of its own, with timm and torchvision: make a timm checkpoint, export it, ask timm.

    python -m tests.families.timm_program ARCHITECTURE PRECISION FOLDER PICTURES.json

Writes FOLDER/checkpoint, an entry into FOLDER/models, and FOLDER/expected.json: the answers of
`transformers.pipeline` to the pictures. What is served afterwards needs neither library.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from exporter.precision import Precision


def main(architecture: str, precision: Precision, folder: Path, pictures_file: Path) -> None:
    """Do everything that needs timm."""
    import timm
    from timm.models import save_for_hf
    from transformers import pipeline

    from exporter.config_pbtxt import ServingOptions
    from exporter.export import ExportRequest, export_model

    torch.manual_seed(3)
    model = timm.create_model(architecture, pretrained=False, num_classes=6)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    model.eval()
    with torch.no_grad():
        # Large enough for scores to differ between pictures.
        head = model.get_classifier()
        head.weight.copy_(torch.randn_like(head.weight))
        blocks = torch.nn.functional.interpolate(torch.randn(16, 3, 7, 7), size=224)
        head.weight *= 0.5 / model(blocks).std(0).mean()
    save_for_hf(
        model,
        checkpoint,
        model_config={"label_names": [f"timm {i}" for i in range(6)]},
        safe_serialization="both",
    )
    # timm checkpoints on the hub have no such key, and transformers refuses one with labels.
    config_file = checkpoint / "config.json"
    config = json.loads(config_file.read_text())
    config.pop("model_args", None)
    config_file.write_text(json.dumps(config))
    export_model(
        ExportRequest(
            str(checkpoint),
            folder / "models",
            f"timm/{architecture}",
            precision=precision,
            options=ServingOptions(max_batch_size=2),
        )
    )
    classify = pipeline("image-classification", model=str(checkpoint))
    pictures = json.loads(pictures_file.read_text())
    answers = {
        name: classify(Image.open(io.BytesIO(base64.b64decode(data))), top_k=6)
        for name, data in pictures.items()
    }
    (folder / "expected.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], cast(Precision, sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
