"""The generator contract, decision space, noise, policies, and the pipeline users load."""
