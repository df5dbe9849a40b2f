"""From scores to decisions: rules, recommendations, ads, variants. Pure."""
