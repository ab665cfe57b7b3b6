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
# # An encoder of your own images
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/simclr-tf/blob/main/notebooks/simclr_colab.ipynb)
#
# This notebook pretrains an encoder with SimCLR: a network that turns images into features, learned without labels.
# It shows the augmented views and the curves of training, evaluates the encoder, draws a map of the images, and ends
# with a SavedModel. *Runtime > Run all* does all of this with pictures of digits that come with the program, whose
# training takes three to four and a half minutes on two CPU cores. Then name your own images in the second step, and
# run it again.
#
# A test runs every cell on CPUs, with few images and a small network. It has not been run on Colab, on a GPU or on a
# TPU yet.
#
# ## 1. Choose a runtime
#
# In Colab: *Runtime > Change runtime type*. A CPU is enough for the digits, and for a thousand photographs in about a
# quarter of an hour. Choose a GPU for more. With a TPU, the next cells install TensorFlow's build for TPUs. Files on
# the machine are lost when it ends: to keep a long run, mount a Google Drive and let `MODEL_DIR` be a folder on it.
# A run that was interrupted resumes if the cells are run again.
#
# ## 2. Choose the images
#
# `DATA` is one of these:
#
# - `digits`: pictures of digits that come with the program;
# - a folder: one with a `/` in its name. Its images may be in one folder for each class (`CLASS/*.jpg`), in
#   `train/CLASS/` and `test/CLASS/`, or without classes. In Colab, upload it by the file browser on the left, or mount
#   a Drive with `from google.colab import drive; drive.mount("/content/drive")`;
# - the name of a data set of tensorflow-datasets, such as `cifar10`, which is downloaded.

# %% tags=["parameters"]
RUNTIME = "auto"  # @param ["auto", "cpu", "gpu", "tpu"]
DATA = "digits"  # @param ["digits", "/content/photos", "cifar10"] {allow-input: true}
MODEL_DIR = "runs/notebook"  # @param {type: "string"}
MORE_FLAGS = ""  # @param {type: "string"}
REPOSITORY = "https://github.com/OWNER/simclr-tf"

# %% [markdown]
# ## 3. Install
#
# On a fresh machine, this takes a few minutes. In a clone that is installed, it does nothing. TensorFlow's build for
# TPUs needs the version of libtpu that is given here: with the one that pip chooses beside it, the process aborts
# without a Python error.

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


machine_has = {
    "tpu": bool(glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")),
    "gpu": bool(glob.glob("/dev/nvidia[0-9]*")),
    "cpu": True,
}
if RUNTIME == "auto":
    RUNTIME = next(kind for kind, found in machine_has.items() if found)
if not machine_has[RUNTIME]:
    raise RuntimeError(
        f"This machine has no {RUNTIME.upper()}: choose one by Runtime > Change runtime type, or "
        'set RUNTIME = "auto".'
    )

if not os.path.exists("run.py") and os.path.exists("../run.py"):
    os.chdir("..")  # The notebook was opened in a clone.
if not os.path.exists("run.py"):
    pip = [sys.executable, "-m", "pip"]
    sh("git", "clone", "--depth=1", REPOSITORY, "simclr-tf")
    os.chdir("simclr-tf")
    sh(*pip, "install", "--quiet", "-r", "requirements.txt")
    if RUNTIME == "tpu":
        sh(*pip, "uninstall", "--quiet", "--yes", "tensorflow")
        versions = ["tensorflow-tpu==2.20.*", "tf-keras==2.20.*", "libtpu==0.0.14"]
        sh(*pip, "install", "--quiet", *versions)
print("Runtime:", RUNTIME)

# %% [markdown]
# ## 4. Look at the views
#
# What is common to two views of an image is what the encoder will learn. This shows each operation, with the default
# strengths. If one removes what matters in your images, weaken it in `MORE_FLAGS`, for example with
# `--color_jitter_strength=0.2`. After training, section 6 shows the views that were used.

# %%
from IPython.display import SVG, Image, display

if DATA == "digits":
    data_flags = []  # The program's default, with settings of its own.
elif "/" in DATA:
    data_flags = ["--dataset=image_folder", f"--data_dir={DATA}"]
else:
    data_flags = [f"--dataset={DATA}"]
flags = [*data_flags, *(["--preset=auto"] if data_flags else []), *shlex.split(MORE_FLAGS)]
if RUNTIME == "tpu":
    flags += ["--use_tpu", "--mixed_precision=bfloat16"]
if RUNTIME == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
run_py = [sys.executable, "run.py"]

sh(*run_py, "--mode=show_views", *data_flags, f"--model_dir={MODEL_DIR}_views")
display(Image(f"{MODEL_DIR}_views/operations.png"))

# %% [markdown]
# ## 5. Pretrain and evaluate
#
# TensorBoard shows the curves while the next cell trains; its button at the top right reads them again.

# %%
# %load_ext tensorboard
# %tensorboard --logdir {MODEL_DIR}

# %% [markdown]
# With a data set of your own, the program chooses network, image size, batch size and length by the number and the
# size of the images, and prints its choice as flags. Flags in `MORE_FLAGS` override it: `--train_steps=5000` trains
# longer. At the end it prints the accuracies. Compare *linear evaluation of the encoder* with *raw pixels* and
# *untrained encoder*: if it is not clearly better than both, the encoder has learned little.

# %%
sh(*run_py, "--mode=train_then_eval", *flags, f"--model_dir={MODEL_DIR}")

# %% [markdown]
# ## 6. Curves and views

# %%
# %matplotlib inline
import json

import matplotlib.pyplot as plt

with open(f"{MODEL_DIR}/metrics.jsonl") as file:
    records = [json.loads(line) for line in file]
curves = ["train/contrast_loss", "train/contrast_acc", "train/learning_rate"]
figure, axes = plt.subplots(1, len(curves), figsize=(14, 3), layout="constrained")
for axis, name in zip(axes, curves):
    points = [(record["step"], record[name]) for record in records if name in record]
    axis.plot(*zip(*points))
    axis.set(title=name, xlabel="step")
plt.show()
display(Image(f"{MODEL_DIR}/views.png"))

# %% [markdown]
# ## 7. A map of the images
#
# Images with similar features are near each other. Distances between groups, and their sizes, mean nothing. The whole
# report of the run, with all numbers and pictures, is `report.html` in its folder. There is a map if the images have
# labels and more than 24 of them are evaluated.

# %%
sh(*run_py, "--mode=eval", f"--model_dir={MODEL_DIR}", "--evaluations=map")
for path in sorted(glob.glob(f"{MODEL_DIR}/evaluation/*/map.svg"), key=os.path.getmtime)[-1:]:
    display(SVG(filename=path))

# %% [markdown]
# ## 8. Download the SavedModel

# %%
import shutil

archive = shutil.make_archive(f"{MODEL_DIR}/saved_model", "zip", MODEL_DIR, "saved_model")
try:
    from google.colab import files

    files.download(archive)
except ImportError:
    print("The SavedModel is in", archive)

# %% [markdown]
# ## 9. Call it
#
# The SavedModel needs TensorFlow and nothing of this program. It reads the bytes of image files of any size. Replace
# `photos` by files of your own.

# %%
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Prints errors only.
import tensorflow as tf

tf.config.set_visible_devices([], "GPU")  # Leaves the memory of the GPU to the program.
(folder,) = glob.glob(f"{MODEL_DIR}/saved_model/*")
model = tf.saved_model.load(folder)
photos = [f"{MODEL_DIR}/views.png", f"{MODEL_DIR}_views/operations.png"]
image_bytes = tf.stack([tf.io.read_file(path) for path in photos])
features = model.signatures["serving_bytes"](image_bytes=image_bytes)["features"]
directions = tf.math.l2_normalize(features, axis=1)
print("features:", features.shape)
print("cosine of the two pictures:", float(tf.reduce_sum(directions[0] * directions[1])))

# %% [markdown]
# ## What next
#
# - [From a folder of photographs to an encoder](https://github.com/OWNER/simclr-tf/blob/main/docs/your_images.md):
#   search, errors in the data, fine-tuning.
# - [Serving](https://github.com/OWNER/simclr-tf/blob/main/docs/serving.md): features from a web address.
