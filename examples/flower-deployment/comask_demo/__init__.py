"""A Flower app: Fashion-MNIST with FedAdam-SSM."""
