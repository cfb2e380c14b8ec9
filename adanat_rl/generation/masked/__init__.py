"""The masked-token family: step rule, sampler, NAT, tokenizer, schedules."""
