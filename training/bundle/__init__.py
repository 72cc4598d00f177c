"""From a finished run to a bundle: its models, golden case and model card, read back by the node's own reader."""
