"""Pools as files: made of analysed rows, combined, repeated, cut to a size, ranked, merged and joined."""
