"""Image files become the uint8 pixels that a model takes. Start with `images`.

The only package that imports Pillow and the resizer.
"""
