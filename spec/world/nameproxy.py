"""Stands before a name server, by UDP and TCP, and spoils what passes: nameproxy.py FOLDER ADDRESS TO PORT

FOLDER/mode says how, a word looked at for each question:
  pass      nothing
  silent    no answer
  deaf      the first datagram of each question is lost
  noise     a datagram gets wrong answers, then the right one
  cut       a TCP answer ends half way
  flip      the last byte of the signature is another
  unsigned  an answer that says yes and is not signed
  other     a TCP answer to another question
  keep      an update is made and never answered
  early     an update is taken and never made
  old       a server that knows no EDNS
FOLDER/seen gets a letter per question: u or t.
"""
import os
import socket
import struct
import sys
import threading

folder, address, to, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
seen_before = set()


def mode():
    with open(folder + "/mode") as file:
        return file.read().strip()


def note(letter):
    with open(folder + "/seen", "a") as file:
        file.write(letter)


def ask_udp(question):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.sendto(question, (to, port))
        return s.recv(65535)


def whole(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def bare(question, rcode=0):
    """Only a header: an answer to this question, of no records."""
    return question[:2] + struct.pack(">BB", 0x80 | (question[2] & 0x79), rcode) + b"\0" * 8


def datagram(s, question, sender):
    how = mode()
    note("u")
    if how == "silent" or how == "deaf" and question not in seen_before:
        seen_before.add(question)
        return
    if how == "old" and question[11]:
        s.sendto(bare(question, 1), sender)
        return
    answer = ask_udp(question)
    if how == "noise":
        other_id = bytes([answer[0] ^ 1]) + answer[1:]
        other_name = answer[:13] + bytes([answer[13] ^ 1]) + answer[14:]
        for wrong in (b"", b"x", other_id, other_name, question, answer[:12], os.urandom(100)):
            s.sendto(wrong, sender)
    s.sendto(answer, sender)


def connection(c):
    with c, socket.create_connection((to, port)) as server:
        length = whole(c, 2)
        question = whole(c, struct.unpack(">H", length)[0])
        how = mode()
        note("t")
        if how == "silent":
            c.recv(1)
            return
        if how == "unsigned":
            c.sendall(struct.pack(">H", 12) + bare(question))
            return
        changes = question[2] & 0x78 == 0x28 and question[8:10] != b"\0\0"
        if how == "early" and changes:
            note("k")
            c.recv(1)
            return
        server.sendall(length + question)
        while True:
            answer = whole(server, struct.unpack(">H", whole(server, 2))[0])
            if how == "flip":
                answer = answer[:-7] + bytes([answer[-7] ^ 1]) + answer[-6:]
            if how == "other":
                answer = bytes([answer[0] ^ 1]) + answer[1:]
            if how == "keep" and changes:
                note("k")
                c.recv(1)
                return
            framed = struct.pack(">H", len(answer)) + answer
            if how == "cut":
                c.sendall(framed[:len(framed) // 2])
                return
            c.sendall(framed)


def quietly(fn, *args):
    try:
        fn(*args)
    except (EOFError, OSError):
        pass


def accept(listener):
    while True:
        c, _ = listener.accept()
        threading.Thread(target=quietly, args=(connection, c), daemon=True).start()


listener = socket.create_server((address, port))
threading.Thread(target=accept, args=(listener,), daemon=True).start()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind((address, port))
    open(folder + "/ready", "w").close()
    while True:
        packet, who = udp.recvfrom(65535)
        quietly(datagram, udp, packet, who)
