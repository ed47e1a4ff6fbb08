"""Turn image files into the uint8 pixels that a model takes. Read `images` first.

Only this package imports Pillow and the resizer.
"""
