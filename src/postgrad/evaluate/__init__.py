"""The referee: splits, scores, thresholds, statistics, and the one sealed read. Nothing that is optimised runs here."""
