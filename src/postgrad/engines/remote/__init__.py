"""Jobs on other machines: one contract for clusters, one lease for all of them."""
