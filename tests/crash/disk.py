"""A small file system of its own, in a file. Needs root."""

import os
import subprocess

THROTTLE = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device"


class Disk:
    """`size` bytes, mounted at `mount` beneath `folder`."""

    def __init__(self, folder, size):
        self.image, self.mount = os.path.join(folder, "disk.img"), os.path.join(folder, "disk")
        self.throttled = False
        self.fills_names = False
        os.makedirs(self.mount)
        with open(self.image, "wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount], check=True)

    def throttle(self, rate):
        """Has it take at most `rate` bytes a second, 0 for no bound. By control groups, version 1."""
        device = os.stat(self.mount).st_dev
        with open(THROTTLE, "w") as file:
            file.write(f"{os.major(device)}:{os.minor(device)} {rate}")
        self.throttled = rate > 0

    def close(self):
        if self.throttled:
            self.throttle(0)
        subprocess.run(["umount", self.mount], check=False)


class MemoryDisk:
    """`size` bytes of memory as a file system, for at most `names` files and folders if said."""

    def __init__(self, folder, size, names=None):
        self.mount = os.path.join(folder, "disk")
        self.fills_names = names is not None
        os.makedirs(self.mount)
        bound = f",nr_inodes={names}" if names else ""
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}{bound}", "none", self.mount], check=True)

    def close(self):
        subprocess.run(["umount", self.mount], check=False)
