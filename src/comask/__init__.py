"""comask: federated Adam with one shared sparse mask, counted in real bytes."""
