"""One contract for rewards, the adversarial reward, and the service that runs them in Ray actors."""
