"""How we learn: features, the Transformer, its training and its evaluation."""
