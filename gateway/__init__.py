"""The HTTP service: Hugging Face's wire format in front, Triton's gRPC behind.

Read `app` first: what the service is made of. One request then goes through `http.middleware`,
`http.classify`, `classification.classifier`, `imaging.images` and `triton.inference`.
`modelspec` is the contract that travels inside a model's `config.pbtxt`.
The package never imports torch, transformers or the exporter.
"""

__version__ = "0.1.0"
