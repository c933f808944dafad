"""RepMix as published: ResNet-50, two images mixed after its last stage.

Bui, Yu, Collomosse, "RepMix: Representation Mixing for Robust Attribution of
Synthesized Images", ECCV 2022 (https://arxiv.org/abs/2207.02063). Every other
config changes this one. It trains on any prepared data set:

    rmjax train --config repmix --workdir runs/mine \
        --config.data.name=image_folder/mine

The published start is from ImageNet: `--config.model.init=resnet50.pth`, with
torchvision's weights, which are not part of the project.
"""

from ml_collections import ConfigDict

from rmjax.corruptions import SEEN


def get_config() -> ConfigDict:
    """Return the published recipe."""
    config = ConfigDict()
    config.seed = 0

    # Data.
    config.data = ConfigDict()
    config.data.dir = "data"  # where `rmjax prepare` put it
    config.data.name = "image_folder/mine"
    # A table of `rmjax embed`, whose stored features are trained on in place of images:
    # docs/features.md; empty: images.
    config.data.features = ""
    config.data.sources = ()  # empty: all; `real` comes first
    config.data.held_out_sources = ()  # not trained on: the unknown ones in testing
    config.data.near_sources = ()  # those of them whose kin is trained on
    config.data.seen_semantics = ()  # trained on; empty: all that are not unseen
    config.data.unseen_semantics = ()  # kept for testing
    # (3,): train each source on 3 of the seen semantics alone, or on the pairs that are
    # named: ("real/cat", "gan/dog"); empty: all. Other pairs are tested on as new ones,
    # and every source is cut to as many images as the one with the fewest has.
    config.data.train_cells = ()
    config.data.cells_seed = 0  # of the draw; the same for all seeds of a sweep
    config.data.unseen_split = "test"  # "all": every image of the unseen semantics
    config.data.resize = 256  # shorter side in pixels; 0: native resolution
    config.data.size = 256  # square cut on the host
    config.data.crop = 224  # random window of it in training
    config.data.flip = True
    config.data.eval_resize = 224
    config.data.eval_size = 224
    config.data.filter = "bilinear"  # of all resizing, Pillow's; or bicubic
    config.data.squash = False  # resize both sides, not the shorter one alone
    config.data.cache_mib = 2048  # memory for decoded images
    config.data.workers = 0  # decoding processes; 0: threads

    # Model.
    config.model = ConfigDict()
    # resnet50, resnet18, tiny, shallow, pointwise; vit_b32, vit_b16, vit_l14, or vit, whose
    # structure is below; of earlier work (docs/baselines.md): frank_cnn, yu_net, patch_cnn;
    # for stored features: linear, hidden
    config.model.arch = "resnet50"
    config.model.init = ""  # weights to start from: a file, a folder, hf:owner/name
    # rgb, imagenet, highpass, residual, logdct; wiener: for prnu; dcthist, chroma,
    # luma_chroma: for shallow and pointwise; standard: by the mean and deviation below
    config.model.input = "rgb"
    config.model.mean = (0.5, 0.5, 0.5)  # of the channels in [0, 1]
    config.model.std = (0.5, 0.5, 0.5)
    config.model.embedding_dim = 256
    config.model.dtype = "float32"  # or bfloat16: convolutions and their maps
    config.model.remat = False  # compute residual blocks twice, to save memory
    config.model.gated_source = 0  # whose logit goes with the probability of real
    # As one device normalises its whole batch; False: each device by itself.
    config.model.sync_batch_norm = True

    # The structure of `model.arch = "vit"`, see `rmjax.models.vit.VisionTransformer`. For
    # others' weights `rmjax convert` fills it in; these are DINOv2's of the smallest size.
    config.model.vit = ConfigDict()
    config.model.vit.width = 384  # channels of a token
    config.model.vit.depth = 12  # blocks
    config.model.vit.heads = 6
    config.model.vit.mlp = 1536  # width of the hidden layers
    config.model.vit.patch = 14  # pixels
    config.model.vit.grid = 16  # side of the learned positions, in patches
    config.model.vit.class_token = True
    config.model.vit.registers = 0
    config.model.vit.rotary = 0.0  # base of rotary positions; 0: learned ones
    config.model.vit.antialias = False  # where learned positions are interpolated
    config.model.vit.pre_norm = False  # before the first block
    config.model.vit.post_norm = False  # after the pool instead of before it
    config.model.vit.layer_scale = True
    config.model.vit.activation = "gelu"  # gelu_tanh, quick_gelu, silu, relu
    config.model.vit.gated = False  # SwiGLU, where the activation is silu
    config.model.vit.epsilon = 1e-6  # of the norms
    config.model.vit.pool = "class"  # mean, attention
    config.model.vit.project = True  # to embedding_dim; False: what was pooled

    # Corruption of training images: by one kind of ImageNet-C each, or by blur and by
    # JPEG (`rmjax.corruptions.blur_jpeg`), which takes the rate alone.
    config.corrupt = ConfigDict()
    config.corrupt.recipe = "imagenet_c"  # or blur_jpeg
    config.corrupt.rate = 0.95  # share of the images; 0: none
    config.corrupt.names = SEEN  # each equally likely
    config.corrupt.severities = (1, 2, 3, 4, 5)  # each equally likely
    config.corrupt.rounding = True  # truncate to 8 bits
    config.corrupt.glass_swap = False  # glass_blur: swap pixels as meant; slow
    config.corrupt.frost_dir = ""  # photographs of frost; empty: drawn

    # Simulated generators, which render training images: docs/simulate.md.
    config.simulate = ConfigDict()
    config.simulate.generators = 0  # in a batch, beside real; new ones in each; 0: none
    # What they do without, to see what that is worth: skip, synthesis, grain, fine, tile,
    # waves.
    config.simulate.without = ()

    # Mixing.
    config.mix = ConfigDict()
    # Groups drawn together, one sample each: repmix, mixup, manifold, cutmix, channels,
    # tokens, factorial. Every image with others of its block, one sample an image:
    # pairs, manifold_pairs, mixstyle, amplitude, phase. Or none.
    config.mix.name = "repmix"
    config.mix.level = 5  # 0: pixels, 1: stem, 2..5: layers, 6: embedding
    config.mix.members = 2  # images in a sample
    # Who shares a group with the first: any, same_source (of another semantic) or
    # same_semantic (of another source).
    config.mix.partners = "any"
    config.mix.block = 16  # adjacent images that are mixed among each other
    config.mix.beta = 0.4  # of the Dirichlet weights; 0: uniform
    config.mix.band = (0.0, 0.1)  # amplitude, phase: frequencies, in cycles a pixel

    # compound; ungated: detection does not scale the attribution logits; attribution:
    # their cross-entropy alone, detection follows from them; contrastive: that, and
    # embeddings of a source are to be alike; fingerprint: the latter alone, and no heads;
    # adjusted: attribution, but what a semantic alone tells of the source, where pairs
    # are left out, is not to be learnt.
    config.loss = "compound"

    # Baselines that are fitted in closed form: docs/baselines.md. They draw images as
    # training does and ignore mixing, optimiser and schedule.
    config.fit = ConfigDict()
    config.fit.name = ""  # ridge, prnu, eigenfaces, probe, knn; empty: by gradient
    config.fit.images = 12288  # training images drawn, pass after pass
    config.fit.memory_gib = 1.0  # for their features; a fit takes up to 3 times that

    # Optimiser: Adam, with weight decay as L2 in the gradient.
    config.optim = ConfigDict()
    config.optim.lr = 1e-4
    config.optim.lr_decay = 0.85  # factor an epoch
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.weight_decay = 5e-4

    # Schedule.
    config.batch_size = 64  # images, over all devices: 32 groups of 2
    # Equal pieces of a device's part that go through one after the other, to save
    # memory; each is normalised with its own statistics.
    config.accumulate_steps = 1
    config.eval_batch_size = 64  # images at once on a device
    config.num_epochs = 30
    config.steps_per_epoch = 0  # 0: one pass; of groups, over the first members
    config.eval_every_epochs = 2
    config.patience = 3  # validations without a better loss before it stops
    config.keep_best = 10  # checkpoints; the last two are kept as well

    # Machine.
    config.num_devices = 0  # of each process; 0: all
    config.log_every_steps = 50
    config.checkpoint_every_steps = 1000  # what a crash may cost; SIGTERM costs nothing
    return config
