"""Changes to a model that make it cheaper to serve and leave its logits as they are."""
