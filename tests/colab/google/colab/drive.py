"""The stand-in's Drive: the folder that COLAB_DRIVE names; with "refused" the mount fails, as where a user says no."""

import os

mounted = []


def mount(mountpoint):
    """Remember what was mounted where; a folder of this machine takes the place of /content/drive."""
    if os.environ.get("COLAB_DRIVE") == "refused":
        raise ValueError("mount failed")
    mounted.append(mountpoint)
    if "COLAB_DRIVE" in os.environ:
        import utils.colab

        utils.colab.DRIVE_MOUNT = os.environ["COLAB_DRIVE"]
