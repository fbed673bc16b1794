"""Mixture-of-experts parts: gates that choose, dispatch that computes only what was chosen, losses that balance."""
