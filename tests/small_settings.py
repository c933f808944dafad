"""What shrinks the shipped config `attribution_mini` to seconds."""

SMALL = {
    "data.size": 32,
    "data.crop": 24,
    "data.eval_size": 32,
    "batch_size": 16,
    "steps_per_epoch": 4,
    "num_epochs": 3,
    "eval_batch_size": 32,
    "log_every_steps": 2,
    "num_devices": 1,
}
