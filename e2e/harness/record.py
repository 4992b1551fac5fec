"""Appends one checkpoint of a server to a record file of the judge. Called by judge.go: record.py JUDGE_FOLDER --uri ..."""
import argparse
import json
import os
import sys
import threading

sys.path.insert(0, sys.argv[1])

import oracle_lib as L  # noqa: E402
import pymongo  # noqa: E402
from bson import Timestamp  # noqa: E402


def recorder(path):
    """The judge's Recorder starts a file anew; ours goes on with one that exists."""
    if not os.path.exists(path):
        return L.Recorder(path, {"by": "harness"})
    r = L.Recorder.__new__(L.Recorder)
    r.path, r.side, r.lock, r.n = path, path + ".d", threading.Lock(), len(L.checkpoints(path))
    r.f = open(path, "a")
    return r


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--uri", required=True)
    p.add_argument("--record", required=True)
    p.add_argument("--at", help="t,i; default: now, on a server that nobody writes to")
    a = p.parse_args(sys.argv[2:])
    client = pymongo.MongoClient(a.uri, serverSelectionTimeoutMS=15000, uuidRepresentation="standard", datetime_conversion="DATETIME_AUTO")
    if a.at:
        at = t = Timestamp(*map(int, a.at.split(",")))
        kind = "snapshot"
    else:
        at, kind = None, "quiesced"
        t = client.admin.command({"appendOplogNote": 1, "data": {"by": "harness"}})["operationTime"]
    truth = L.read_truth(client, at=at)
    n = recorder(a.record).checkpoint(kind, t, truth)
    print(json.dumps({"n": n, "t": [t.time, t.inc], "collections": len(truth.meta), "documents": sum(len(c.docs) for c in truth.colls.values())}))


main()
