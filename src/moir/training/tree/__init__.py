"""Training the shipped form of UniRestorer: extractor, cluster, experts, router."""
