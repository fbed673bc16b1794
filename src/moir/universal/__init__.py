"""UniRestorer: estimate the degradation, at the right granularity, and route."""
