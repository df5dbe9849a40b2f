"""Deployment: what runs the product on a machine, and where each part of the image comes from."""
