"""Registers a service, keeps its lease, says who owns a key, and deregisters at the end: docs/clients.md.

    python3 client.py NODE,NODE… GROUP ID ADDR KEY

REGISTRY_CLUSTER, NAME or NAME/ID, says of which cluster the nodes must be.
"""
import os, random, signal, sys, threading, time, urllib.parse
import grpc
import registry_pb2 as pb, registry_pb2_grpc, status_pb2

TTL = 10  # seconds, as all times here
NOTHING_DONE = {"NO_LEADER", "NOT_READY", "STALE", "BUSY"}
BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

def reason(error):  # of the ErrorDetail that came with a gRPC error
    for name, value in error.trailing_metadata() or ():
        for packed in status_pb2.Status.FromString(value).details if name == "grpc-status-details-bin" else ():
            detail = pb.ErrorDetail()
            if packed.Unpack(detail):
                return pb.ErrorDetail.Reason.Name(detail.reason)

def unknown(error):
    return reason(error) == "OUTCOME_UNKNOWN" or not reason(error) and error.code() in BROKEN

class Stop(Exception):  # a signal came
    pass

stopped = threading.Event()  # gRPC makes an error of its own of a Stop that comes while it reads an answer

class Nodes:
    def __init__(self, addrs, cluster):
        self.addrs, self.stubs, self.index = addrs, {}, 0  # the highest log index that was seen
        self.answered = False
        self.asked = None  # since when a call has no answer
        threading.Thread(target=self.watch, daemon=True).start()
        self.cluster = "/".join(urllib.parse.quote(part, safe="") for part in cluster.split("/"))

    def watch(self):  # one thread for all calls: a signal must not come while one is started
        while True:
            time.sleep(0.2)
            asked = self.asked
            if asked and time.monotonic() - asked > 1:
                print("no answer yet, trying", ", ".join(self.addrs), file=sys.stderr, flush=True)
                self.asked = None

    def call(self, method, request, patience, attempt):
        self.asked = time.monotonic()
        try:
            return self.ask(method, request, patience, attempt)
        finally:
            self.asked = None

    def ask(self, method, request, patience, attempt):  # asks one node after the other for a definite answer
        end, foreign = time.monotonic() + patience, set()
        while True:
            addr = self.addrs[0]
            if addr not in self.stubs:
                channel = grpc.insecure_channel(addr, options=[("grpc.enable_http_proxy", 0)])
                self.stubs[addr] = registry_pb2_grpc.RegistryStub(channel)
            try:
                named = [("registry-cluster", self.cluster)] if self.cluster else []
                answer, call = getattr(self.stubs[addr], method).with_call(request, timeout=attempt, metadata=named)
                # The first answer decides which cluster this client is of.
                self.answered = True
                self.cluster = dict(call.initial_metadata()).get("registry-cluster", self.cluster)
                return answer
            except grpc.RpcError as e:
                if reason(e) == "WRONG_CLUSTER":  # another node has its address, which is resolved anew
                    foreign.add(addr)
                    self.stubs.pop(addr)
                elif not (unknown(e) or reason(e) in NOTHING_DONE):
                    raise
                if time.monotonic() > end or foreign.issuperset(self.addrs):
                    raise
                if unknown(e) and hasattr(request, "again"):
                    request.again = True
            self.addrs.append(self.addrs.pop(0))
            time.sleep(random.uniform(0.05, 0.1))

    def write(self, method, request, patience=10 * TTL):  # takes effect once, at whatever nodes it is attempted
        request.since = self.call("Index", pb.IndexRequest(), patience, 1).index
        request.request_id = os.urandom(16)
        answer = self.call(method, request, min(patience, 10), 3)  # leaders remember requests for 15 s
        self.index = max(self.index, answer.index)
        return answer

def stop(*_):
    for s in signal.SIGTERM, signal.SIGINT: signal.signal(s, signal.SIG_DFL)  # the next one ends the process
    stopped.set()
    raise Stop

def keep(nodes, me, addr, key):  # until a signal comes, or the registration is refused
    lease = None
    while not stopped.is_set():
        beat = lease and nodes.call("Heartbeat", pb.HeartbeatRequest(lease_ids=[lease]), 10 * TTL, TTL / 4)
        if not beat or beat.lost:  # the same instance again: CONFLICT or FENCED if another process has the id
            lease = nodes.write("Register", pb.RegisterRequest(addr=addr, ttl={"seconds": TTL}, **me)).lease_id
            print("registered, lease", lease, flush=True)
        elif beat.leader_addr:  # where heartbeats need no hop
            nodes.addrs = [beat.leader_addr] + [a for a in nodes.addrs if a != beat.leader_addr]
        match = pb.MatchRequest(group=me["group"], key=key.encode(), read={"min_index": nodes.index})
        print(key, "is with", nodes.call("Match", match, TTL, 1).members[0].id, "says", nodes.addrs[0], flush=True)
        time.sleep(TTL / 3 - random.uniform(0, TTL / 15))

def main(addrs, group, id, addr, key):
    nodes = Nodes(addrs.split(","), os.environ.get("REGISTRY_CLUSTER", ""))
    for s in signal.SIGTERM, signal.SIGINT: signal.signal(s, stop)
    me = dict(group=group, id=id, instance=os.urandom(16))
    try:
        keep(nodes, me, addr, key)
    except (Stop, grpc.RpcError):
        if not stopped.is_set():
            raise
    if not nodes.answered:
        return  # nothing was registered
    answer = nodes.write("Deregister", pb.DeregisterRequest(keep_held=True, **me), patience=2)
    print("deregistered" if answer.removed else "ended; held by an operator, or gone before", flush=True)

if __name__ == "__main__":
    if len(sys.argv) != 6:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as e:
        hint = "; if the cluster was formed anew, start this program again" if reason(e) == "WRONG_CLUSTER" else ""
        sys.exit(f"client.py: {reason(e) or e.code().name}: {e.details()}{hint}")
