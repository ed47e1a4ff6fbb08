"""Tokens: who may call, and the command that keeps them."""
