"""moir inside other programs."""
