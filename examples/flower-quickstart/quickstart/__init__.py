"""A stock Flower PyTorch app that trains with FedAdam-SSM; docs/guides/flower.md goes through the changes."""
