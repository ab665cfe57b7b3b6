# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Coming from google-research/simclr
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/simclr-tf/blob/main/notebooks/coming_from_simclr.ipynb)
#
# This notebook takes a SavedModel of google-research/simclr, looks at it, evaluates it on your data, fine-tunes it,
# and writes it again in the form that its notebooks load. Its checkpoints are read in the same way.
# [The page of the same name](https://github.com/OWNER/simclr-tf/blob/main/docs/coming_from_simclr.md) says what is
# the same and what differs.
#
# A test runs every cell on CPUs, with a ResNet-18 in that form. It has not been run on Colab, on a GPU, or with the
# published models yet. For these, choose a GPU by *Runtime > Change runtime type*.
#
# ## 1. Choose a model and data
#
# `CHECKPOINT` is a folder or an address (`gs://...`) with a SavedModel or a checkpoint. The published models of
# SimCLRv2 are below `gs://simclr-checkpoints-tf2/simclrv2/`. `DATA` are the flags of your data: for a folder of
# images `--dataset=image_folder --data_dir=/content/photos`. `IMAGE_SIZE` is the size that the model was trained
# with, and `TUNING` are flags of fine-tuning: a small batch, because these networks are large.

# %% tags=["parameters"]
CHECKPOINT = "gs://simclr-checkpoints-tf2/simclrv2/pretrained/r50_1x_sk0/saved_model"  # @param {type: "string"}
DATA = "--dataset=tf_flowers --train_split=train[:80%] --eval_split=train[80%:]"  # @param {type: "string"}
IMAGE_SIZE = 224  # @param {type: "integer"}
TUNING = "--train_batch_size=64 --train_epochs=10"  # @param {type: "string"}
RUNS = "runs/coming_from_simclr"  # @param {type: "string"}
REPOSITORY = "https://github.com/OWNER/simclr-tf"

# %% [markdown]
# ## 2. Install
#
# On a fresh machine, this takes a few minutes. In a clone that is installed, it does nothing.

# %%
import glob
import os
import shlex
import subprocess
import sys


def sh(*command):
    """Runs a command, shows what it prints, and stops the notebook if it fails."""
    print("$", shlex.join(command), flush=True)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"The command failed with exit code {process.returncode}; see above.")


if not os.path.exists("run.py") and os.path.exists("../run.py"):
    os.chdir("..")  # The notebook was opened in a clone.
if not os.path.exists("run.py"):
    sh("git", "clone", "--depth=1", REPOSITORY, "simclr-tf")
    os.chdir("simclr-tf")
    sh(sys.executable, "-m", "pip", "install", "--quiet", "-r", "requirements.txt")
data_flags = shlex.split(DATA)
run_py = [sys.executable, "run.py"]

# %% [markdown]
# ## 3. Look at the model
#
# `--mode=convert` makes a run directory of it. It lists what it read, and what it assumed because weights do not tell,
# such as the size of the images, unless a `flags.json` is beside them. An incomplete encoder is refused.

# %%
sh(
    *run_py,
    "--mode=convert",
    f"--checkpoint={CHECKPOINT}",
    f"--image_size={IMAGE_SIZE}",
    f"--model_dir={RUNS}/converted",
)

# %% [markdown]
# ## 4. Evaluate it
#
# A linear classifier is fitted to the frozen features of your training images, and measured on the others. Every image
# counts once.

# %%
sh(
    *run_py,
    "--mode=eval",
    f"--checkpoint={RUNS}/converted",
    f"--model_dir={RUNS}/evaluated",
    *data_flags,
)

# %% [markdown]
# ## 5. Fine-tune it
#
# The whole network is trained on the labels, with the settings of SimCLR's appendix B.5. The old linear head is left
# out if it has other classes, and the program says so.

# %%
sh(
    *run_py,
    "--mode=finetune",
    f"--checkpoint={RUNS}/converted",
    f"--model_dir={RUNS}/tuned",
    *data_flags,
    *shlex.split(TUNING),
)

# %%
import json

for name, key in {
    "evaluated": "linear_eval/top_1_accuracy",
    "tuned": "eval/label_top_1_accuracy",
}.items():
    with open(f"{RUNS}/{name}/result.json") as file:
        print(f"{name}: {json.load(file)[key]:.1%} (top-1)")

# %% [markdown]
# ## 6. Keep your notebooks
#
# `--format=official` writes the form that the notebooks of google-research/simclr load: the SavedModel is called with
# images and `trainable`, and its outputs have the same names. Written again from the converted run, the model gives
# the features of the original.

# %%
sh(*run_py, "--mode=export", "--format=official", f"--model_dir={RUNS}/converted")

# %%
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Prints errors only.
import tensorflow as tf

tf.config.set_visible_devices([], "GPU")  # Leaves the memory of the GPU to the program.
(folder,) = glob.glob(f"{RUNS}/converted/saved_model_official/*")
model = tf.saved_model.load(folder)
images = np.random.default_rng(0).uniform(size=(4, IMAGE_SIZE, IMAGE_SIZE, 3)).astype("float32")
outputs = model(images, trainable=False)
print(sorted(outputs))

if tf.saved_model.contains_saved_model(CHECKPOINT):
    original = tf.saved_model.load(CHECKPOINT)(images, trainable=False)["final_avg_pool"]
    difference = np.abs(outputs["final_avg_pool"] - original).max()
    print("largest difference of a feature:", difference, "of", np.abs(original).max())
    assert difference < 1e-3 * np.abs(original).max()

# %% [markdown]
# The fine-tuned network is in the form for TensorFlow Serving, with named signatures:

# %%
(folder,) = glob.glob(f"{RUNS}/tuned/saved_model/*")
classifier = tf.saved_model.load(folder).signatures["serving_default"]
with open(f"{RUNS}/tuned/architecture.json") as file:
    class_names = json.load(file)["class_names"]
for image in classifier(images=tf.constant(images))["logits"].numpy():
    print(class_names[int(image.argmax())])
