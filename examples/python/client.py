"""Registers a service, keeps its lease, says who owns a key, and deregisters at the end: docs/clients.md.

    python3 client.py NODE,NODE… GROUP ID ADDR KEY
"""
import os, random, signal, sys, threading, time
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

class Nodes:
    def __init__(self, addrs):
        self.addrs, self.stubs, self.index = addrs, {}, 0  # the highest log index that was seen

    def call(self, method, request, patience, attempt):  # asks one node after the other for a definite answer
        end = time.monotonic() + patience
        while True:
            addr = self.addrs[0]
            if addr not in self.stubs:
                channel = grpc.insecure_channel(addr, options=[("grpc.enable_http_proxy", 0)])
                self.stubs[addr] = registry_pb2_grpc.RegistryStub(channel)
            try:
                return getattr(self.stubs[addr], method)(request, timeout=attempt)
            except grpc.RpcError as e:
                if time.monotonic() > end or not (unknown(e) or reason(e) in NOTHING_DONE):
                    raise
                if unknown(e) and hasattr(request, "again"):
                    request.again = True
            self.addrs.append(self.addrs.pop(0))
            time.sleep(random.uniform(0.05, 0.1))

    def write(self, method, request):  # takes effect once, at whatever nodes it is attempted
        request.since = self.call("Index", pb.IndexRequest(), 10 * TTL, 1).index
        request.request_id = os.urandom(16)
        answer = self.call(method, request, 10, 3)  # leaders remember requests for 15 s
        self.index = max(self.index, answer.index)
        return answer

def main(addrs, group, id, addr, key):
    stop = threading.Event()
    for s in signal.SIGTERM, signal.SIGINT: signal.signal(s, lambda *_: stop.set())
    nodes, me, lease = Nodes(addrs.split(",")), dict(group=group, id=id, instance=os.urandom(16)), None
    while not stop.is_set():
        beat = lease and nodes.call("Heartbeat", pb.HeartbeatRequest(lease_ids=[lease]), 10 * TTL, TTL / 4)
        if not beat or beat.lost:  # the same instance again: CONFLICT or FENCED if the seat is another's
            lease = nodes.write("Register", pb.RegisterRequest(addr=addr, ttl={"seconds": TTL}, **me)).lease_id
            print("registered, lease", lease, flush=True)
        elif beat.leader_addr:  # where heartbeats need no hop
            nodes.addrs = [beat.leader_addr] + [a for a in nodes.addrs if a != beat.leader_addr]
        match = pb.MatchRequest(group=group, key=key.encode(), read={"min_index": nodes.index})
        print(key, "is with", nodes.call("Match", match, TTL, 1).members[0].id, "says", nodes.addrs[0], flush=True)
        stop.wait(TTL / 3 - random.uniform(0, TTL / 15))
    nodes.write("Deregister", pb.DeregisterRequest(keep_held=True, **me))
    print("deregistered", flush=True)

if __name__ == "__main__":
    main(*sys.argv[1:])
