"""The projected discriminator: trained heads on frozen DINO features (Sauer et al., NeurIPS 2021 and ICML 2023)."""
