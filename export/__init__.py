"""How we ship: a trained model as a bundle that a worker accepts."""
