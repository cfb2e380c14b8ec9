"""PPO on RLlib: algorithm, learner, module, env runner, shards and who deals them."""
