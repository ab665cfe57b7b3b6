"""Loads a SavedModel and answers one request: the program that `reloading` runs.

It is run by its path and imports nothing of this package, as on a server. The standard input is a
line of JSON: the folder, the name of a signature of encoded images, and images in base64. It prints
the answers as JSON.
"""

import base64
import json
import sys

import tensorflow as tf


def main() -> None:
    """Answers the request in the standard input."""
    request = json.loads(sys.stdin.readline())
    loaded = tf.saved_model.load(request["folder"])
    files = [base64.b64decode(one) for one in request["images"]]
    answers = loaded.signatures[request["signature"]](image_bytes=tf.constant(files))
    print(json.dumps({name: values.numpy().tolist() for name, values in answers.items()}))


if __name__ == "__main__":
    main()
