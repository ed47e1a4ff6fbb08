"""The Hugging Face wire format over HTTP: requests become plain data, results become answers.

Start with `routes`. Nothing in here decodes an image or runs a model.
"""
