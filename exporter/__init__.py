"""Offline: a transformers checkpoint becomes a verified entry of a Triton model repository.

Read `export` first; it calls `checkpoint`, `preprocessing`, `graph`, `verify`, `config_pbtxt` and
`repository` in that order.
Of the gateway it imports `gateway.modelspec` alone, the contract the two sides share.
"""
