"""UniRestorer's published training: the degradation extractor, then tree, experts and router."""
