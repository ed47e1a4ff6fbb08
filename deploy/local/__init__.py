"""The one-machine runner: a real tritonserver from a wheel, the gateway, and a demo model.

Read `serve` first. Nothing is downloaded or installed at run time but the models asked for.
"""
