"""RepMix in a training loop of your own: 20 lines that matter, half a minute on a CPU.

    python examples/own_loop.py

The images are drawn: smooth noise as `real`, and the same after it was halved and
enlarged again by two "generators", one by repeating pixels and one bilinearly.
"""

import jax
import jax.numpy as jnp
import optax

import rmjax

SIZE, BATCH, STEPS = 32, 64, 40
SOURCES = ("real", "nearest", "linear")


def draw(key):
    """Return images `[BATCH, SIZE, SIZE, 3]` in [-1, 1] and their sources `[BATCH]`."""
    noise = jax.random.normal(key, (BATCH, SIZE, SIZE, 3))
    small = jax.image.resize(noise, (BATCH, SIZE // 2, SIZE // 2, 3), "linear")
    enlarged = [jax.image.resize(small, noise.shape, how) for how in SOURCES[1:]]
    sources = jnp.arange(BATCH) % len(SOURCES)
    images = jnp.stack([noise / 2, *enlarged])[sources, jnp.arange(BATCH)]
    return jnp.clip(images, -1, 1), sources


def main():
    """Train, and print the loss and the accuracy on images that were not trained on."""
    model = rmjax.RepMix("tiny", num_sources=len(SOURCES))
    mixing = rmjax.make_mixing("repmix", members=2, level=5)
    optimizer = optax.adam(3e-3)

    variables = model.init(jax.random.key(0), draw(jax.random.key(0))[0])
    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, batch_stats, opt_state, key):
        key_data, key_mix = jax.random.split(key)
        images, sources = draw(key_data)

        def loss_fn(params):
            out, updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mix=mixing,
                rngs={"mix": key_mix},
                mutable=["batch_stats"],
            )
            loss = rmjax.compound_loss(out, sources, out["mixed"])
            return loss, updates["batch_stats"]

        grads, stats = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state

    @jax.jit
    def evaluate(params, batch_stats, key):
        images, sources = draw(key)
        out = model.apply({"params": params, "batch_stats": batch_stats}, images)
        accuracy = jnp.mean(out["attribution"].argmax(-1) == sources)
        return rmjax.compound_loss(out, sources), accuracy

    for i in range(STEPS):
        params, batch_stats, opt_state = step(
            params, batch_stats, opt_state, jax.random.key(i)
        )
        if i % 20 == 19:
            loss, accuracy = evaluate(params, batch_stats, jax.random.key(10_000))
            print(f"step {i + 1}: loss {loss:.3f}, accuracy {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
