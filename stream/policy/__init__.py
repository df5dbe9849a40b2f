"""Decision stage: filters, re-rankers, selection, ads and A/B test buckets. Pure functions over a request's scores."""
