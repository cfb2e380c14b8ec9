"""Settings of a pretraining that is over in seconds."""

MNIST = (
    "pretraining.num_tokenizer_steps=20",
    "pretraining.num_classifier_steps=2",
    "pretraining.num_steps=10",
    "pretraining.width=16",
    "pretraining.depth=1",
    "evaluation.num_images=16",
    "resources.driver_threads=1",
)
