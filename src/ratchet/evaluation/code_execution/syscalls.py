"""The system calls that untrusted code may not make, as a filter that the kernel applies (seccomp).

Namespaces, mounts, tracing, kernel keys, modules, BPF, io_uring and sockets are refused with EPERM,
and so is memory that no limit of a process counts (System V segments, memory files, message
queues). What starts threads and processes stays allowed.

Assembled by hand: the one Python binding of libseccomp that is widely used was last released in
2021, and needs a system library.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
NEW_NAMESPACE = 0x7E020080  # every CLONE_NEW* flag
FOREIGN_ABI = 0x40000000  # x32 numbers on x86_64

# Numbers of asm/unistd.h: x86_64, aarch64.
_NUMBERS: Mapping[str, tuple[int, int]] = {
    "socket": (41, 198),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def filter_program(machine: str) -> bytes | None:
    """Return the filter as the kernel reads it, or None for a machine that it is not written for.

    Args:
        machine: As `platform.machine()` names it.
    """
    if machine not in _MACHINES:
        return None
    architecture, column = _MACHINES[machine]
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    steps = [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if machine == "x86_64":
        steps += [(AT_LEAST, 0, 1, FOREIGN_ABI), (RETURN, 0, 0, KILL)]
    # clone3 hides its flags from filters: without it the C library falls back to clone
    steps += [(EQUAL, 0, 1, _CLONE3[column]), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    for numbers in _NUMBERS.values():
        steps += [(EQUAL, 0, 1, numbers[column]), refuse]
    steps += [
        (EQUAL, 1, 0, _CLONE[column]),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (ANY_BIT, 0, 1, NEW_NAMESPACE),
        refuse,
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
