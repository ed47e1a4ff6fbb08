"""Offline: a transformers checkpoint becomes a verified entry of a Triton model repository.

Read `export` first; it calls `checkpoint`, `preprocessing`, `sample`, `graph`, `verify`,
`config_pbtxt` and `repository`.
From the gateway it imports only `gateway.modelspec`, the contract between the two, and
`gateway.imaging.pixels`, to prove that the gateway prepares images as the checkpoint does.
"""
