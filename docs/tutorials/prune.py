# %% [markdown]
# # Prune your own network
#
# Prune a trained network in three lines of Python, without a study and without Ray. Run this file as it is (`python
# docs/tutorials/prune.py`, about half a minute on a laptop), or cell by cell in an editor that supports `# %%` cells.
# The images are synthetic; with your own, only `train`, `val` and `batches` change.

# %%
import copy
import json
import tempfile
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rssearch import data, models, pruning
from rssearch.config import Augment, Recipe, Split
from rssearch.cost import profile
from rssearch.data import loader
from rssearch.device import pick_device
from rssearch.models import attention
from rssearch.train import evaluate, fit

device = pick_device()
images = data.load("synthetic_scenes", Path(tempfile.mkdtemp()), input_size=16, split=Split())
train, val = images.split("train"), images.split("val")

# %% [markdown]
# ## A trained network
#
# Any `nn.Module` that takes a batch of images will do. `Elasticity` records the last epoch of the training; only
# compound pruning needs it.

# %%
torch.manual_seed(0)
model = models.create("resnet20", images.num_classes)
elasticity = pruning.Elasticity(model)
recipe = Recipe(epochs=4, lr=0.1)
fit(model, train, val, recipe, augment=Augment(), elasticity=elasticity)
accuracy = evaluate(model, val, batch_size=256, device=device)["accuracy"]
print(f"trained: {profile(model, images.input_shape).macs:,} MACs, accuracy {accuracy:.1%}")

# %% [markdown]
# ## Three lines
#
# The MACs are met within 1 %, before anything is trained. The original is not changed; `half.model` is an ordinary
# network with smaller layers, which needs fine-tuning.

# %%
example = torch.zeros(1, *images.input_shape, device=device)
half = pruning.prune(model, example, "l1", macs_ratio=0.5)
print(f"{half.report['macs']:,} MACs left: {half.report['macs_ratio']:.1%}")

finetune = Recipe(epochs=1, lr=0.01, recalibrate_batches=10)
fit(half.model, train, val, finetune, augment=Augment())
print(f"fine-tuned: accuracy {evaluate(half.model, val, batch_size=256, device=device)['accuracy']:.1%}")

# %% [markdown]
# ## Other methods
#
# `rssearch methods` lists them. Some need images: the papers use five mini-batches. Each method chooses
# channels in its own way (the same share of each layer, or all layers ranked together); `allocation=` changes that.

# %%
batches = list(islice(loader.batches(train, 128, device=device, train=True, seed=0), 5))
for method in ("random", "fpgm", "lamp", "taylor", "lfp", "hrank", "chip"):
    pruned = pruning.prune(model, example, method, macs_ratio=0.5, data=batches)
    report = pruned.report
    print(f"{method:8s} {report['allocation']:8s} removed {report['removed_fraction']:.1%} of the filters", end=", ")
    print(f"{report['params_ratio']:.1%} of the parameters left")

# %% [markdown]
# Most papers give a pruning ratio, here `rate`, instead of a share of MACs: the share of filters to remove. Compound
# pruning removes the filters that two criteria agree on, so it removes fewer than its rate; the report has both.

# %%
compound = pruning.prune(model, example, "compound", rate=0.5, elasticity=elasticity.values())
print(f"compound at rate 0.5 removes {compound.report['removed_fraction']:.1%} of the filters")

# %% [markdown]
# RemoteTrimmer trains with attention, folds it into batch normalisation, and prunes by the scales that result. `fit`
# does that with `Recipe(attention=True)`; in your own training loop it is these calls.

# %%
attended = copy.deepcopy(model)
attention.insert(attended)
# ... train `attended` here ...
folded = pruning.prune(attended, example, "remotetrimmer", rate=0.3, data=batches)  # folds the mean over the batches
print(f"RemoteTrimmer at rate 0.3: {folded.report['macs_ratio']:.1%} of the MACs left")

# %% [markdown]
# ## In several steps
#
# With training in between, and scores that are measured again in each step.

# %%
gradually = pruning.prune(
    model,
    example,
    "taylor",
    macs_ratio=0.5,
    steps=2,
    data=batches,
    train=lambda net: fit(net, train, val, finetune, augment=Augment()),
)
print(f"in {gradually.report['steps']} steps: {gradually.report['macs_ratio']:.1%} of the MACs left")

# %% [markdown]
# ## Save and load
#
# The weights are saved as safetensors, the structure as JSON: no pickles. To load them, build the original network and
# apply the spec to it.

# %%
folder = Path(tempfile.mkdtemp())
save_file({name: tensor.contiguous() for name, tensor in half.model.state_dict().items()}, folder / "model.safetensors")
(folder / "spec.json").write_text(json.dumps(half.spec))

fresh = models.create("resnet20", images.num_classes)
rebuilt = pruning.apply_spec(fresh, json.loads((folder / "spec.json").read_text()))
rebuilt.load_state_dict(load_file(folder / "model.safetensors"))
again = evaluate(rebuilt.to(device), val, batch_size=256, device=device)["accuracy"]
print(f"loaded again: accuracy {again:.1%}")
