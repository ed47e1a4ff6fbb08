"""The HTTP service: Hugging Face's wire format in front, Triton's gRPC behind.

Read in this order: `app` (what is put together), `routes` (URLs), `classify` (HTTP), `classifier`
(one request), `images`, `packing`, `triton`, `inferred`, `postprocess`.
`modelspec` is the contract that travels inside a model's `config.pbtxt`.
The package never imports torch, transformers or the exporter.
"""

__version__ = "0.1.0"
