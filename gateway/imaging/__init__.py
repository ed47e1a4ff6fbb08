"""Turn image files into the uint8 pixels that a model takes. Read `images` first.

In the gateway, only this package imports Pillow and the resizer.
"""
