# %% [markdown]
# # Run a study from Python
#
# A study trains and prunes networks for every point of a search space, and finds the Pareto front: the trials that no
# other trial beats in both accuracy and cost. On the command line that is `rssearch search`; here are the same steps in
# a script or a notebook, with the results as pandas frames. Run this file as it is (`python docs/tutorials/study.py`,
# about a minute on a laptop), or cell by cell in an editor that supports `# %%` cells. It needs no download: the images
# are synthetic. The picture goes to the working directory.

# %%
from pathlib import Path
from tempfile import mkdtemp

from matplotlib.figure import Figure

import rssearch

# %% [markdown]
# ## Load a study
#
# `load_study` reads a YAML file, or a study that comes with the package, here `quickstart`. The second argument
# replaces values of the YAML, as `--set` does on the command line. Every value is checked here: a wrong one raises
# `rssearch.InputError`, which names its key.
#
# `space` says what to search over: two pruning methods, each at two pruning ratios. Small images and short trainings
# keep this page short; its accuracies say little about the methods.

# %%
overrides = {
    "storage": mkdtemp(),  # where results and trained networks are kept; default: results/
    "space.method": ["random", "l1"],
    "space.rate": [0.3, 0.6],
    "settings.input_size": 16,
    "settings.train": {"epochs": 4, "lr": 0.1, "batch_size": 64},
    "settings.finetune": {"epochs": 1, "lr": 0.02, "batch_size": 64, "recalibrate_batches": 10},
}
study = rssearch.load_study("quickstart", overrides)

# %% [markdown]
# ## See what it would cost
#
# `plan` trains nothing. It counts the trials, and the MACs of every pruned network.

# %%
plan = rssearch.plan(study)
print(*plan.lines(), sep="\n")

# %% [markdown]
# ## Run it
#
# `search` starts Ray on this machine, unless `address` names a cluster. It trains the baseline once, and runs the
# trials: each prunes the baseline, fine-tunes the pruned network and measures it. It returns 0 when all trials have
# finished.

# %%
status = rssearch.search(study)
print(f"status {status}")

# %% [markdown]
# ## Look at the results
#
# `results` can be called at any time, also while the study runs in another process. `trials`, `front` and `baseline`
# are pandas frames ([their columns](../front_schema.md#fields-of-a-trial)); `hypervolume` is one number for each
# dataset, the share of the objective space that the front dominates. It grows with a better front.

# %%
found = rssearch.results(study)
columns = ["method", "rate", "val_accuracy", "macs"]
print(found.trials[columns].to_string(index=False))
print(f"{len(found.front)} of {len(found.trials)} trials are on the front")
print(f"hypervolume {found.hypervolume['synthetic_scenes']:.3f}")

# %% [markdown]
# ## Add a method
#
# Change the study and run it again: what has finished is kept, and only the new points run. The same call resumes a
# study that was interrupted. The baseline is trained no second time either.

# %%
study = rssearch.load_study("quickstart", {**overrides, "space.method": ["random", "l1", "lfp"]})
plan = rssearch.plan(study)
print(f"{plan.trials} trials, of which {plan.finished} have finished")

rssearch.search(study)
before, found = found, rssearch.results(study)
new = found.trials[~found.trials["key"].isin(before.trials["key"])]
print(f"{len(new)} new trials: {', '.join(sorted(set(new['method'])))}")
print(f"hypervolume {before.hypervolume['synthetic_scenes']:.3f} -> {found.hypervolume['synthetic_scenes']:.3f}")

# %% [markdown]
# ## Plot the front

# %%
figure = Figure(figsize=(6, 3.5), layout="constrained")
axes = figure.subplots()
for method, trials in found.trials.groupby("method"):
    axes.scatter(trials["macs"] / 1e6, trials["val_accuracy"], label=method)
axes.plot(found.front["macs"] / 1e6, found.front["val_accuracy"], color="grey", zorder=0, label="Pareto front")
axes.plot(found.baseline["macs"] / 1e6, found.baseline["val_accuracy"], "k*", markersize=10, label="before pruning")
axes.set(xlabel="million MACs", ylabel="validation accuracy")
axes.legend()
figure.savefig("front.png", dpi=150)

# %% [markdown]
# ## Where to go from here
#
# The storage also holds `trials.csv`, an interactive page `front.html`, and the record for the MLflow UI: `rssearch
# front`, `rssearch ui` and `rssearch export` read them ([studies](../studies.md#what-is-kept), [MLflow](../mlflow.md),
# [deploy](../deploy.md)).

# %%
print(*sorted(path.name for path in Path(study.storage, study.study).glob("[!.]*")), sep="\n")
