"""Numbers about sets of images: Fréchet distance, precision and recall, feature extractors."""
