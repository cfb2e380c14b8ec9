"""Files of other programs become the product's own: read without running anything, recognised, checked, written."""
