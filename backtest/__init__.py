"""What other bundles, policies and session gaps would have shown on recorded events, held against what users did."""
