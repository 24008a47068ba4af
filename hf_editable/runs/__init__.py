"""Long runs: files written whole, journals, processes, fingerprints, provenance."""
