"""Passes Ethernet frames between two interfaces, late, and some UDP never.

usage: shaper.py NEAR FAR DELAY_MS LOSS SEED

Each way has a delay of DELAY_MS and loses LOSS (0 to 1) of its UDP packets.
Prints `ready` once frames pass; ends when it is killed.
"""

import collections
import random
import select
import socket
import sys
import time

ALL = 0x0003
RCVBUFFORCE = 33
PACKET_OUTGOING = 4
FRAME = 65536
# About what is under way at 1 Gbit/s and 100 ms; more is dropped.
LONGEST = 8192


def opened(name):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    link.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 8 << 20)
    link.bind((name, 0))
    link.setblocking(False)
    return link


def is_udp(frame):
    kind = frame[12:14]
    return (kind == b"\x08\x00" and frame[23] == 17) or (kind == b"\x86\xdd" and frame[20] == 17)


def main():
    near, far = (opened(name) for name in sys.argv[1:3])
    delay, loss = float(sys.argv[3]) / 1000, float(sys.argv[4])
    dice = random.Random(int(sys.argv[5]))
    other = {near: far, far: near}
    late = {link: collections.deque() for link in other}
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = [queue[0][0] for queue in late.values() if queue]
        wait = max(0.0, min(due) - now) if due else None
        readable, _, _ = select.select(list(other), [], [], wait)
        now = time.monotonic()
        for link in readable:
            queue = late[other[link]]
            # Not for ever: the other direction is to have its turn.
            for _ in range(64):
                try:
                    frame, place = link.recvfrom(FRAME)
                except BlockingIOError:
                    break
                if place[2] == PACKET_OUTGOING or len(frame) < 34:
                    continue
                lost = loss > 0 and is_udp(frame) and dice.random() < loss
                if not lost and len(queue) < LONGEST:
                    queue.append((now + delay, frame))
        for link, queue in late.items():
            while queue and queue[0][0] <= now:
                try:
                    link.send(queue[0][1])
                except BlockingIOError:
                    break
                except OSError:
                    # The interface is down: as if nobody were there.
                    pass
                queue.popleft()


main()
