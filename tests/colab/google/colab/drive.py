"""The stand-in's Drive."""

mounted = []


def mount(mountpoint):
    """Remember what was mounted where."""
    mounted.append(mountpoint)
