"""HTTP gateway: take events and answer with decisions over HTTP, beside the topics."""
