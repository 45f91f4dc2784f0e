"""Numerical engine: arrays in, arrays out. Knows no AnnData, no pandas, no plots."""
