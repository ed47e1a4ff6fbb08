"""The one-machine runner: a real tritonserver from a wheel, the gateway, and a demo model.

Read `serve` first. At run time it downloads nothing except the models that it is asked to serve.
"""
