# %% [markdown]
# # Search how many channels each layer needs
#
# Pruning methods score the filters of a trained network. A channel search trains a score for every channel along with
# the weights, while a cost loss moves the expected MACs to the budget. It needs neither a study nor Ray. Run this file
# as it is (`python docs/tutorials/channel_search.py`, about a minute on a laptop), or cell by cell in an editor that
# supports `# %%` cells. The pictures go to the working directory.

# %%
from pathlib import Path
from tempfile import mkdtemp

import torch
from matplotlib.figure import Figure

from rssearch import data, models, nas
from rssearch.config import Augment, ChannelSearch, Recipe, Split
from rssearch.cost import profile
from rssearch.device import pick_device
from rssearch.nas.search import Run
from rssearch.pruning.picture import draw
from rssearch.train import evaluate, fit

device = pick_device()
images = data.load("synthetic_scenes", Path(mkdtemp()), input_size=16, split=Split())
train, val = images.split("train"), images.split("val")

# %% [markdown]
# ## Three lines
#
# The search divides the training images: the weights learn from one part, the scores from the other. What comes back
# is an ordinary network with smaller layers and trained weights. It meets the budget within 1 %.

# %%
torch.manual_seed(0)
model = models.create("resnet20", images.num_classes)
recipe = Recipe(epochs=6, lr=0.1, batch_size=64)
found = nas.search(model, train, macs_ratio=0.5, recipe=recipe, augment=Augment())
print(f"{found.report['macs']:,} of {profile(model, images.input_shape).macs:,} MACs: {found.report['macs_ratio']:.1%}")

finetune = Recipe(epochs=2, lr=0.02, recalibrate_batches=10)
fit(found.model, train, val, finetune, augment=Augment())
print(f"fine-tuned: accuracy {evaluate(found.model, val, batch_size=256, device=device)['accuracy']:.1%}")

# %% [markdown]
# ## What happened
#
# The soft ratio is the expected share of MACs, if each gate is the chance that its channel stays: it comes down to the
# target. As the temperature falls, the gates move to 0 and 1, and the hard ratio (of the channels with scores above 0)
# meets the soft one.

# %%
history = found.report["history"]
for record in history:
    print("epoch {epoch}: soft ratio {soft_ratio:.3f}, hard ratio {hard_ratio:.3f}".format(**record), end=", ")
    print("temperature {temperature:.2f}, training loss {train_loss:.2f}".format(**record))

figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
epochs = [record["epoch"] for record in history]
axes.plot(epochs, [record["soft_ratio"] for record in history], "o-", label="soft: expected MACs")
axes.plot(epochs, [record["hard_ratio"] for record in history], "s--", label="hard: channels with scores above 0")
axes.axhline(0.5, color="black", linewidth=0.8, label="target")
axes.set(xlabel="epoch", ylabel="share of the MACs", ylim=(0, 1.05))
axes.legend()
figure.savefig("ratios.png", dpi=150)

# %% [markdown]
# The scores of every channel, and what is left of each layer:

# %%
draw(found.report["scores"], found.kept).savefig("channels.png", dpi=150)

# %% [markdown]
# ## Several budgets from one search
#
# `Run` is the search itself. Its scores rank all channels, so that networks of several sizes can be derived from it;
# each is fine-tuned on its own. In a study this is `nas.target` with a list of `macs_ratio`.

# %%
run = Run(model, train, 0.5, recipe, ChannelSearch(), Augment(), 0, device)
run.finish()
for ratio in (0.7, 0.5, 0.3):
    derived = nas.derive(run.model, run.gates, macs_ratio=ratio)
    fit(derived.model, train, val, finetune, augment=Augment())
    accuracy = evaluate(derived.model, val, batch_size=256, device=device)["accuracy"]
    print(f"{derived.report['macs_ratio']:.1%} of the MACs: accuracy {accuracy:.1%}")
